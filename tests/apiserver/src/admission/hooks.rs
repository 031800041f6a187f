//! Which webhooks a request concerns. Pure.

use std::time::Duration;

use serde_json::Value;

use super::review::Question;
use crate::cel::Program;
use crate::object;
use crate::selector::Selector;
use crate::store::{Key, Store};

pub(super) const MUTATING: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
pub(super) const VALIDATING: &str = "validatingwebhookconfigurations.admissionregistration.k8s.io";

/// A webhook that is to be asked.
#[derive(Debug, Clone)]
pub(super) struct Hook {
    pub(super) name: String,
    /// `clientConfig`.
    pub(super) client: Value,
    pub(super) timeout: Duration,
    /// A webhook that cannot be asked lets the request pass.
    pub(super) ignores_failure: bool,
    /// `reinvocationPolicy: IfNeeded`.
    pub(super) wants_to_see_changes: bool,
    pub(super) side_effects: bool,
}

impl Hook {
    fn of(webhook: &Value) -> Self {
        Self {
            name: object::text(webhook, "/name").into(),
            client: webhook["clientConfig"].clone(),
            timeout: Duration::from_secs(webhook["timeoutSeconds"].as_u64().unwrap_or(10)),
            ignores_failure: webhook["failurePolicy"] == "Ignore",
            wants_to_see_changes: webhook["reinvocationPolicy"] == "IfNeeded",
            side_effects: !["None", "NoneOnDryRun"].contains(&object::text(webhook, "/sideEffects")),
        }
    }
}

/// The webhooks to ask, by configuration name and then as they are listed.
pub(super) fn matching(store: &Store, configurations: &str, question: &Question<'_>) -> Vec<Hook> {
    // Else a broken webhook could not be removed.
    if question.call.kind.group == "admissionregistration.k8s.io" {
        return Vec::new();
    }
    store
        .list(configurations, "")
        .flat_map(|(_, configuration)| object::items(configuration, "/webhooks"))
        .filter(|webhook| concerns(store, webhook, question))
        .map(Hook::of)
        .collect()
}

fn concerns(store: &Store, webhook: &Value, question: &Question<'_>) -> bool {
    let labels = Selector::of_labels(&webhook["objectSelector"]);
    let objects = [&question.object, &question.before];
    object::items(webhook, "/rules").iter().any(|rule| names(rule, question))
        && objects.into_iter().flatten().any(|object| labels.matches(object))
        && namespace_matches(store, webhook, question)
        && conditions_hold(webhook, question)
}

/// Whether all match conditions hold. One that cannot be told counts as the webhook's failure policy says.
fn conditions_hold(webhook: &Value, question: &Question<'_>) -> bool {
    let conditions = object::items(webhook, "/matchConditions");
    if conditions.is_empty() {
        return true;
    }
    let request = question.review("")["request"].take();
    let scope = [
        ("object".to_owned(), request["object"].clone()),
        ("oldObject".to_owned(), request["oldObject"].clone()),
        ("request".to_owned(), request),
    ]
    .into();
    conditions.iter().all(|condition| {
        let program = Program::parse(object::text(condition, "/expression"));
        program.and_then(|program| program.holds(&scope)).unwrap_or(webhook["failurePolicy"] != "Ignore")
    })
}

fn names(rule: &Value, question: &Question<'_>) -> bool {
    let kind = &question.call.kind;
    let among = |pointer: &str, wanted: &[&str]| {
        object::strings(rule, pointer).iter().any(|one| *one == "*" || wanted.contains(one))
    };
    let sub = question.call.subresource.as_str();
    let resources = object::strings(rule, "/resources");
    let resource = match sub {
        "" => resources.iter().any(|one| [kind.plural.as_str(), "*", "*/*"].contains(one)),
        sub => {
            let wanted = [
                format!("{}/{sub}", kind.plural),
                format!("*/{sub}"),
                format!("{}/*", kind.plural),
                "*/*".into(),
            ];
            resources.iter().any(|one| wanted.iter().any(|wanted| wanted == one))
        }
    };
    let scope = match rule["scope"].as_str() {
        Some("Namespaced") => kind.is_namespaced(),
        Some("Cluster") => !kind.is_namespaced(),
        _ => true,
    };
    resource
        && scope
        && among("/operations", &[question.operation])
        && among("/apiGroups", &[&kind.group])
        && among("/apiVersions", &[&kind.version])
}

/// A namespace itself is selected by its own labels; other objects of the whole cluster always match.
fn namespace_matches(store: &Store, webhook: &Value, question: &Question<'_>) -> bool {
    let selector = Selector::of_labels(&webhook["namespaceSelector"]);
    let call = question.call;
    if call.kind.is("Namespace") {
        return [&question.object, &question.before]
            .into_iter()
            .flatten()
            .any(|object| selector.matches(object));
    }
    if !call.kind.is_namespaced() {
        return true;
    }
    store
        .get(&Key::new("namespaces", "", call.namespace.as_str()))
        .is_some_and(|namespace| selector.matches(namespace))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::by_path;
    use crate::target::{Query, Target};
    use crate::write::Call;

    fn asked(webhook: Value, operation: &'static str, subresource: &str) -> usize {
        let mut store = Store::default();
        let labels = json!({"metadata": {"name": "ns", "labels": {"team": "x"}}});
        store.put(Key::new("namespaces", "", "ns"), labels);
        store.put(Key::new(MUTATING, "", "one"), json!({"webhooks": [webhook]}));
        let target = Target { namespace: "ns".into(), subresource: subresource.into(), ..Target::default() };
        let pods = by_path(&store, "", "v1", "pods").unwrap();
        let call = Call::new(pods, &target, &Query::default(), "t").unwrap();
        let object = Some(json!({"metadata": {"labels": {"a": "b"}}}));
        let question = Question { call: &call, operation, user: "u", name: "p", object, before: None };
        matching(&store, MUTATING, &question).len()
    }

    fn hook(extra: Value) -> Value {
        let mut webhook = json!({"name": "w", "rules": [
            {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]},
        ]});
        json_patch::merge(&mut webhook, &extra);
        webhook
    }

    #[test]
    fn rules_name_operation_and_resource() {
        assert_eq!(asked(hook(json!({})), "CREATE", ""), 1);
        assert_eq!(asked(hook(json!({})), "UPDATE", ""), 0);
        assert_eq!(asked(hook(json!({})), "CREATE", "status"), 0);
        let all = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
        assert_eq!(asked(hook(all), "UPDATE", "status"), 1);
    }

    #[test]
    fn conditions_keep_a_request_from_a_webhook() {
        let condition = |text: &str| json!({"matchConditions": [{"name": "c", "expression": text}]});
        assert_eq!(asked(hook(condition("object.metadata.labels['a'] == 'b'")), "CREATE", ""), 1);
        assert_eq!(asked(hook(condition("request.operation != 'CREATE'")), "CREATE", ""), 0);
        assert_eq!(
            asked(hook(condition("object.spec.nothing == 1")), "CREATE", ""),
            1,
            "the policy is to fail"
        );
    }

    #[test]
    fn selectors_are_of_the_namespace_and_of_the_object() {
        let by = |selector: &str, key: &str, value: &str| json!({selector: {"matchLabels": {key: value}}});
        assert_eq!(asked(hook(by("namespaceSelector", "team", "x")), "CREATE", ""), 1);
        assert_eq!(asked(hook(by("namespaceSelector", "team", "y")), "CREATE", ""), 0);
        assert_eq!(asked(hook(by("objectSelector", "a", "b")), "CREATE", ""), 1);
        assert_eq!(asked(hook(by("objectSelector", "a", "c")), "CREATE", ""), 0);
    }
}
