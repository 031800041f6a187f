//! The configuration that has the API server ask about pods.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference,
    WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::super::certificates::{CERT_MANAGER_INJECT, SERVICE_CA_INJECT, Source};
use super::super::pods::MIRROR;
use super::super::server::MUTATE_POD;
use super::{Address, CONFIGURATION, MatchConditions, POD_WEBHOOK, Setup, named, namespaces};

/// Seconds that a pod's creation may wait for us. We answer in milliseconds; who is away is not waited for.
pub(super) const TIMEOUT: i32 = 5;

/// Builds it. With match conditions only pods of our classes are ever asked about, and one that cannot be asked about is not created:
/// unchanged it would count against nobody's limit. Without them every pod is, so that an absent webhook must not stand in the way.
#[must_use]
pub fn mutating(setup: &Setup) -> MutatingWebhookConfiguration {
    let picks = setup.match_conditions == MatchConditions::Supported;
    let webhook = MutatingWebhook {
        name: POD_WEBHOOK.to_owned(),
        admission_review_versions: vec!["v1".to_owned()],
        client_config: client(&setup.address(), MUTATE_POD),
        failure_policy: Some(if picks { "Fail" } else { "Ignore" }.to_owned()),
        match_conditions: picks.then(|| conditions(setup)),
        match_policy: Some("Equivalent".to_owned()),
        namespace_selector: Some(not_in(namespaces::excluded(&setup.namespace))),
        object_selector: None,
        // Another webhook may add containers behind us; their sizes count as well.
        reinvocation_policy: Some("IfNeeded".to_owned()),
        rules: Some(vec![rule("", "v1", "pods", &["CREATE"], "Namespaced")]),
        side_effects: "None".to_owned(),
        timeout_seconds: Some(TIMEOUT),
    };
    let mut metadata = named(CONFIGURATION, None);
    metadata.annotations = injected_by(&setup.source);
    MutatingWebhookConfiguration { metadata, webhooks: Some(vec![webhook]) }
}

fn conditions(setup: &Setup) -> Vec<MatchCondition> {
    let classes: Vec<String> = setup.pods.classes.iter().map(|class| format!("'{class}'")).collect();
    // Class names are DNS names, checked where settings are read, so none can end the text it stands in.
    let class = format!(
        "has(object.spec.runtimeClassName) && object.spec.runtimeClassName in [{}]",
        classes.join(", ")
    );
    let mirror = format!("!has(object.metadata.annotations) || !('{MIRROR}' in object.metadata.annotations)");
    [("has-a-peer-pod-class", class), ("is-no-mirror-pod", mirror)]
        .map(|(name, expression)| MatchCondition { name: name.to_owned(), expression })
        .into()
}

fn not_in(values: Vec<String>) -> LabelSelector {
    let requirement = LabelSelectorRequirement {
        key: "kubernetes.io/metadata.name".to_owned(),
        operator: "NotIn".to_owned(),
        values: Some(values),
    };
    LabelSelector { match_expressions: Some(vec![requirement]), match_labels: None }
}

pub(super) fn client(address: &Address, path: &str) -> WebhookClientConfig {
    let service = ServiceReference {
        name: address.service.clone(),
        namespace: address.namespace.clone(),
        path: Some(path.to_owned()),
        port: Some(443),
    };
    WebhookClientConfig { ca_bundle: None, service: Some(service), url: None }
}

pub(super) fn rule(
    group: &str,
    version: &str,
    resource: &str,
    operations: &[&str],
    scope: &str,
) -> RuleWithOperations {
    let one = |text: &str| Some(vec![text.to_owned()]);
    RuleWithOperations {
        api_groups: one(group),
        api_versions: one(version),
        operations: Some(operations.iter().map(|operation| (*operation).to_owned()).collect()),
        resources: one(resource),
        scope: Some(scope.to_owned()),
    }
}

/// Asks who makes the certificate to say whom to trust as well.
pub(super) fn injected_by(source: &Source) -> Option<BTreeMap<String, String>> {
    match source {
        Source::Own => None,
        Source::ServiceCa => Some([(SERVICE_CA_INJECT.to_owned(), "true".to_owned())].into()),
        Source::CertManager(certificate) => {
            Some([(CERT_MANAGER_INJECT.to_owned(), certificate.clone())].into())
        }
    }
}
