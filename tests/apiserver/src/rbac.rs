//! Who may do what: by rules that a test gives to a client, or by the roles and bindings that are stored.
//!
//! Not here: that nobody may grant more than they have, aggregated roles, and paths that are no resources (everybody may read those).

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;

use crate::kinds::Kind;
use crate::object;
use crate::refusal::Refusal;
use crate::selector::Selector;
use crate::server::Shared;
use crate::store::{Key, Store};
use crate::target::{Query, Target};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Who a client is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Identity {
    user: String,
    groups: Vec<String>,
    /// What a test gave it; none: what is stored.
    rules: Option<Vec<PolicyRule>>,
}

impl Identity {
    pub(crate) fn account(namespace: &str, name: &str) -> Self {
        let groups = ["system:authenticated".to_owned(), "system:serviceaccounts".to_owned()];
        let own = format!("system:serviceaccounts:{namespace}");
        Self {
            user: format!("system:serviceaccount:{namespace}:{name}"),
            groups: groups.into_iter().chain([own]).collect(),
            rules: None,
        }
    }

    pub(crate) fn with_rules(name: &str, rules: &[PolicyRule]) -> Self {
        Self {
            user: name.to_owned(),
            groups: vec!["system:authenticated".into()],
            rules: Some(rules.to_vec()),
        }
    }

    /// Whether a binding's subject means it.
    fn is_meant(&self, subject: &Value) -> bool {
        let name = object::text(subject, "/name");
        match object::text(subject, "/kind") {
            "ServiceAccount" => {
                self.user == format!("system:serviceaccount:{}:{name}", object::text(subject, "/namespace"))
            }
            "User" => self.user == name,
            "Group" => self.groups.iter().any(|group| group == name),
            _ => false,
        }
    }
}

/// What is to be done to what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deed<'a> {
    pub(crate) verb: &'a str,
    pub(crate) kind: &'a Kind,
    pub(crate) target: &'a Target,
    /// Of the object; of a list the one that its selector names.
    pub(crate) name: &'a str,
}

impl Deed<'_> {
    fn resource(&self) -> String {
        match self.target.subresource.as_str() {
            "" => self.kind.plural.clone(),
            sub => format!("{}/{sub}", self.kind.plural),
        }
    }

    fn is_allowed_by(&self, rule: &PolicyRule) -> bool {
        let among = |list: &Option<Vec<String>>, wanted: &[&str]| {
            list.iter().flatten().any(|one| one == "*" || wanted.contains(&one.as_str()))
        };
        let any_sub = format!("*/{}", self.target.subresource);
        let names = rule.resource_names.as_deref().unwrap_or_default();
        among(&Some(rule.verbs.clone()), &[self.verb])
            && among(&rule.api_groups, &[&self.kind.group])
            && among(&rule.resources, &[&self.resource(), &any_sub])
            && (names.is_empty() || names.iter().any(|name| name == self.name))
    }

    fn refused_to(&self, user: &str) -> Refusal {
        let place = match self.target.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let why = format!(
            "User {user:?} cannot {} resource {:?} in API group {:?} {place}",
            self.verb,
            self.resource(),
            self.kind.group
        );
        Refusal::forbidden(self.kind, self.name, &why)
    }
}

/// Lets a request pass, or not. The answer is the user's name. A client without a token may do everything.
pub(crate) fn admit(
    shared: &Shared,
    authorization: &str,
    verb: &str,
    kind: &Kind,
    target: &Target,
    query: &Query,
) -> Result<String, Refusal> {
    let Some(token) = authorization.strip_prefix("Bearer ") else { return Ok("system:admin".into()) };
    let identity = shared.desk().tokens.get(token).cloned();
    let identity = identity.ok_or_else(|| Refusal::new(401, "Unauthorized", "Unauthorized"))?;
    let selector = Selector::parse(kind, "", query.text("fieldSelector")).unwrap_or_default();
    let name = if target.name.is_empty() { selector.only_name().unwrap_or_default() } else { &target.name };
    let deed = Deed { verb, kind, target, name };
    let rules = match &identity.rules {
        Some(rules) => rules.clone(),
        None => stored(&shared.store(), &identity, &target.namespace),
    };
    if rules.iter().any(|rule| deed.is_allowed_by(rule)) {
        return Ok(identity.user);
    }
    Err(deed.refused_to(&identity.user))
}

/// The rules that bindings give somebody in a namespace (empty: on the whole cluster).
fn stored(store: &Store, identity: &Identity, namespace: &str) -> Vec<PolicyRule> {
    let everywhere = format!("clusterrolebindings.{GROUP}");
    let here = format!("rolebindings.{GROUP}");
    let local = store.list(&here, namespace).filter(|_| !namespace.is_empty());
    store
        .list(&everywhere, "")
        .chain(local)
        .filter(|(_, binding)| object::items(binding, "/subjects").iter().any(|one| identity.is_meant(one)))
        .filter_map(|(_, binding)| role(store, namespace, &binding["roleRef"]))
        .flat_map(|role| object::items(role, "/rules"))
        .filter_map(|rule| serde_json::from_value(rule.clone()).ok())
        .collect()
}

fn role<'a>(store: &'a Store, namespace: &str, reference: &Value) -> Option<&'a Value> {
    let name = object::text(reference, "/name");
    let key = match object::text(reference, "/kind") {
        "ClusterRole" => Key::new(format!("clusterroles.{GROUP}"), "", name),
        _ => Key::new(format!("roles.{GROUP}"), namespace, name),
    };
    store.get(&key).map(|role| &**role)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::by_path;

    fn target(namespace: &str, subresource: &str) -> Target {
        Target { namespace: namespace.into(), subresource: subresource.into(), ..Target::default() }
    }

    fn rule(value: Value) -> PolicyRule {
        serde_json::from_value(value).unwrap()
    }

    fn allowed(rule: &PolicyRule, verb: &str, subresource: &str, name: &str) -> bool {
        let kind = by_path(&Store::default(), "apps", "v1", "daemonsets").unwrap();
        Deed { verb, kind: &kind, target: &target("ns", subresource), name }.is_allowed_by(rule)
    }

    #[test]
    fn a_rule_must_name_verb_group_resource_and_name() {
        let plain = rule(json!({"verbs": ["get"], "apiGroups": ["apps"], "resources": ["daemonsets"]}));
        assert!(allowed(&plain, "get", "", "a"));
        assert!(!allowed(&plain, "list", "", ""));
        assert!(!allowed(&plain, "get", "status", "a"), "a subresource is a resource of its own");
        let named = rule(
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["daemonsets/status"], "resourceNames": ["a"]}),
        );
        assert!(allowed(&named, "patch", "status", "a"));
        assert!(!allowed(&named, "patch", "status", "b"));
        let core = rule(json!({"verbs": ["*"], "apiGroups": [""], "resources": ["*"]}));
        assert!(!allowed(&core, "get", "", "a"));
    }

    #[test]
    fn bindings_give_roles_on_the_cluster_or_in_their_namespace() {
        let mut store = Store::default();
        let subject = json!([{"kind": "ServiceAccount", "namespace": "ns", "name": "op"}]);
        let rules =
            |verb: &str| json!({"rules": [{"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}]});
        store.put(Key::new(format!("clusterroles.{GROUP}"), "", "c"), rules("get"));
        store.put(Key::new(format!("roles.{GROUP}"), "ns", "r"), rules("list"));
        let binding =
            |kind: &str, name: &str| json!({"subjects": subject, "roleRef": {"kind": kind, "name": name}});
        store.put(Key::new(format!("clusterrolebindings.{GROUP}"), "", "x"), binding("ClusterRole", "c"));
        store.put(Key::new(format!("rolebindings.{GROUP}"), "ns", "y"), binding("Role", "r"));
        let verbs = |account: &str, namespace: &str| -> Vec<String> {
            stored(&store, &Identity::account("ns", account), namespace)
                .into_iter()
                .flat_map(|rule| rule.verbs)
                .collect()
        };
        assert_eq!(verbs("op", "ns"), ["get", "list"]);
        assert_eq!(verbs("op", "other"), ["get"]);
        assert_eq!(verbs("op", ""), ["get"]);
        assert!(verbs("stranger", "ns").is_empty());
    }
}
