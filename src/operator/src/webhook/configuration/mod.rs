//! The objects that make the API server ask, and those that run what answers. Built from a [`Setup`], applied by others. Pure.
//!
//! Those of the pods' webhook are applied by the `KataConfig` controller while peer pods are on; those of the operator's own webhook
//! ([`operator`]) are installed with the operator.
//!
//! `caBundle` is left out everywhere: whoever keeps the certificate owns that field, and server-side apply leaves it alone then.
//!
//! The mutating configuration is called `peerpods-webhook`. Upstream's `mutating-webhook-configuration` is the name that every project made
//! with kubebuilder has, so applying it would take over somebody else's; nothing that we are compatible with reads the name, but the
//! webhook's own, `mwebhook.peerpods.io`, is kept. [`is_upstreams`] tells upstream's object from others, for whoever takes over from it.

mod access;
mod mutating;
pub mod namespaces;
pub mod operator;
mod validating;
mod workload;

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::certificates::Source;
use super::pods::Settings;

pub use access::{Access, access};
pub use mutating::mutating;
pub use operator::{OPERATOR_CERTIFICATE_SECRET, OPERATOR_SERVICE};
pub use validating::validating;
pub use workload::{deployment, disruption_budget, service};

/// The configurations.
pub const CONFIGURATION: &str = "peerpods-webhook";
/// The Deployment, its ServiceAccount and its roles.
pub const DEPLOYMENT: &str = "peer-pods-webhook";
/// The Service in front of it.
pub const SERVICE: &str = "peer-pods-webhook-svc";
/// The Secret with its certificate.
pub const CERTIFICATE_SECRET: &str = "peer-pods-webhook-svc-secret";
/// The webhook that changes pods.
pub const POD_WEBHOOK: &str = "mwebhook.peerpods.io";
/// A user that owns nothing: an image whose own is root would not be started as anybody else.
pub const USER: i64 = 65532;
/// Where it listens.
pub const PORT: i32 = 9443;
/// Where the program answers about its health and shows its metrics, in the webhook's pods and the operator's.
pub const HEALTH_PORT: i32 = 8080;
/// Upstream's name of the mutating configuration.
pub const UPSTREAMS: &str = "mutating-webhook-configuration";

/// Whether the API server asks only about objects that an expression picks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MatchConditions {
    /// From Kubernetes 1.28 on.
    #[default]
    Supported,
    /// Before.
    Unsupported,
}

impl MatchConditions {
    /// By the API server's version, whose parts some distributions write as `28+`. One that cannot be read is taken for a new one; a server
    /// that does not know a field refuses what has it, by name.
    #[must_use]
    pub fn of(major: &str, minor: &str) -> Self {
        let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok();
        match (number(major), number(minor)) {
            (Some(1), Some(minor)) if minor < 28 => Self::Unsupported,
            _ => Self::Supported,
        }
    }

    /// What an administrator should know.
    #[must_use]
    pub fn warning(self) -> Option<&'static str> {
        (self == Self::Unsupported).then_some(
            "this API server is older than Kubernetes 1.28 and asks the peerpods webhook about every pod; while the webhook is away, pods of the peer pod classes are created unchanged and do not start",
        )
    }
}

/// A Service that the API server calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub service: String,
}

/// What the objects are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// The operator's namespace.
    pub namespace: String,
    /// The image of our program.
    pub image: String,
    /// What the webhook does with pods.
    pub pods: Settings,
    /// Who makes the certificate.
    pub source: Source,
    /// What the API server can.
    pub match_conditions: MatchConditions,
    /// The user that the pods run as; none where the cluster gives every namespace users of its own, as OpenShift does.
    pub user: Option<i64>,
}

impl Setup {
    /// The Service of the pods' webhook.
    #[must_use]
    pub fn address(&self) -> Address {
        Address { namespace: self.namespace.clone(), service: SERVICE.to_owned() }
    }
}

/// Whether an object is the mutating configuration of upstream's operator, and not of another project.
#[must_use]
pub fn is_upstreams(configuration: &MutatingWebhookConfiguration) -> bool {
    let mut webhooks = configuration.webhooks.iter().flatten();
    configuration.metadata.name.as_deref() == Some(UPSTREAMS)
        && configuration.webhooks.as_ref().is_some_and(|webhooks| !webhooks.is_empty())
        && webhooks.all(|webhook| webhook.name == POD_WEBHOOK)
}

fn labels() -> BTreeMap<String, String> {
    [
        ("app", DEPLOYMENT),
        ("app.kubernetes.io/component", "webhook"),
        ("app.kubernetes.io/managed-by", "peerpods"),
        ("app.kubernetes.io/name", "peerpods"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// What selects the Deployment's pods; upstream's one label.
fn selector() -> BTreeMap<String, String> {
    [("app".to_owned(), DEPLOYMENT.to_owned())].into()
}

fn named(name: &str, namespace: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        labels: Some(labels()),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests;
