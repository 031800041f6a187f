//! What is installed with the operator so that its own webhook is asked: a Service in front of its pods, its rights, and the validating
//! configuration ([`super::validating()`]). Nothing of it depends on a `KataConfig`: it decides whether there may be one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use peerpods_crds::KATACONFIG_GROUP;

use super::super::certificates::{SERVICE_CA_REQUEST, Source};
use super::access::{keeping, rule, trusting};
use super::{Address, PORT, named};

/// The Service in front of the operator.
pub const OPERATOR_SERVICE: &str = "peerpods-operator-webhook";
/// The Secret with its certificate.
pub const OPERATOR_CERTIFICATE_SECRET: &str = "peerpods-operator-webhook-cert";

/// Where the API server finds the operator.
#[must_use]
pub fn address(namespace: &str) -> Address {
    Address { namespace: namespace.to_owned(), service: OPERATOR_SERVICE.to_owned() }
}

/// The Service in front of the pods with these labels: those of the operator.
#[must_use]
pub fn service(namespace: &str, pods: BTreeMap<String, String>, source: &Source) -> Service {
    let mut metadata = named(OPERATOR_SERVICE, Some(namespace));
    metadata.annotations = (*source == Source::ServiceCa)
        .then(|| [(SERVICE_CA_REQUEST.to_owned(), OPERATOR_CERTIFICATE_SECRET.to_owned())].into());
    let spec = ServiceSpec {
        ports: Some(vec![ServicePort {
            name: Some("webhook".to_owned()),
            port: 443,
            protocol: Some("TCP".to_owned()),
            target_port: Some(IntOrString::Int(PORT)),
            ..ServicePort::default()
        }]),
        selector: Some(pods),
        type_: Some("ClusterIP".to_owned()),
        ..ServiceSpec::default()
    };
    Service { metadata, spec: Some(spec), status: None }
}

/// What the operator's webhook may do, beside all else that the operator may.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// In the operator's namespace.
    pub namespace: Vec<PolicyRule>,
    /// In the cluster.
    pub cluster: Vec<PolicyRule>,
}

/// Builds them.
#[must_use]
pub fn rules() -> Rules {
    Rules {
        namespace: keeping(OPERATOR_CERTIFICATE_SECRET),
        cluster: vec![
            trusting("validatingwebhookconfigurations"),
            // Whether there is one already.
            rule(KATACONFIG_GROUP, "kataconfigs", &["list"], None),
        ],
    }
}
