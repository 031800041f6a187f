//! The configuration that has the API server ask about `KataConfig` and `PeerPodConfig`.
//!
//! The operator itself answers, behind its own Service: a `KataConfig` is what the pods' webhook is installed for, so it must be judged
//! before that is there. Updates of what is being deleted are never asked about, so that a webhook that is away holds no deletion up; an
//! API server that cannot tell (before 1.28) asks about creations alone.

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, ValidatingWebhook, ValidatingWebhookConfiguration,
};
use peerpods_crds::{KATACONFIG_GROUP, PEERPODS_GROUP};

use super::super::certificates::Source;
use super::super::server::{VALIDATE_KATACONFIG, VALIDATE_PEERPODCONFIG};
use super::mutating::{TIMEOUT, client, injected_by, rule};
use super::{Address, CONFIGURATION, MatchConditions, named};

struct Validated {
    webhook: &'static str,
    path: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    scope: &'static str,
    failure_policy: &'static str,
}

const VALIDATED: [Validated; 2] = [
    Validated {
        webhook: "vkataconfig.kb.io",
        path: VALIDATE_KATACONFIG,
        group: KATACONFIG_GROUP,
        version: "v1",
        resource: "kataconfigs",
        scope: "Cluster",
        // That there is one in a cluster is said nowhere else.
        failure_policy: "Fail",
    },
    Validated {
        webhook: "vpeerpodconfig.peerpods.io",
        path: VALIDATE_PEERPODCONFIG,
        group: PEERPODS_GROUP,
        version: "v1alpha1",
        resource: "peerpodconfigs",
        scope: "Namespaced",
        // Its definition refuses nearly as much.
        failure_policy: "Ignore",
    },
];

/// Builds it for the Service behind which the operator answers.
#[must_use]
pub fn validating(
    address: &Address,
    source: &Source,
    match_conditions: MatchConditions,
) -> ValidatingWebhookConfiguration {
    let mut metadata = named(CONFIGURATION, None);
    metadata.annotations = injected_by(source);
    let webhooks = VALIDATED.iter().map(|one| webhook(one, address, match_conditions)).collect();
    ValidatingWebhookConfiguration { metadata, webhooks: Some(webhooks) }
}

fn webhook(one: &Validated, address: &Address, match_conditions: MatchConditions) -> ValidatingWebhook {
    let (operations, conditions): (&[&str], _) = match match_conditions {
        MatchConditions::Supported => (&["CREATE", "UPDATE"], Some(vec![not_being_deleted()])),
        MatchConditions::Unsupported => (&["CREATE"], None),
    };
    ValidatingWebhook {
        name: one.webhook.to_owned(),
        admission_review_versions: vec!["v1".to_owned()],
        client_config: client(address, one.path),
        failure_policy: Some(one.failure_policy.to_owned()),
        match_conditions: conditions,
        match_policy: Some("Equivalent".to_owned()),
        namespace_selector: None,
        object_selector: None,
        rules: Some(vec![rule(one.group, one.version, one.resource, operations, one.scope)]),
        side_effects: "None".to_owned(),
        timeout_seconds: Some(TIMEOUT),
    }
}

fn not_being_deleted() -> MatchCondition {
    MatchCondition {
        name: "is-not-being-deleted".to_owned(),
        expression: "!has(object.metadata.deletionTimestamp)".to_owned(),
    }
}
