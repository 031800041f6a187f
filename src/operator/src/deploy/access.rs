//! Accounts, roles and bindings, made of the table of rights.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use serde_json::{Value, json};

use super::named;
use super::rights::{HOLDERS, Holder, Right, Scope};
use crate::names;

const RBAC: &str = "rbac.authorization.k8s.io";

/// Everybody's account, and their rights where they hold in every cluster.
#[must_use]
pub fn everywhere() -> Vec<Value> {
    let accounts = HOLDERS.iter().map(account);
    let rights = HOLDERS
        .iter()
        .flat_map(|holder| [Scope::Cluster, Scope::Own].into_iter().flat_map(|scope| granted(holder, scope)));
    accounts.chain(rights).collect()
}

/// Rights in OpenShift's own namespaces.
#[must_use]
pub fn on_openshift() -> Vec<Value> {
    let places = HOLDERS.iter().flat_map(|holder| holder.rights.iter().map(|right| right.scope));
    let places: BTreeSet<Scope> = places.filter(|scope| matches!(scope, Scope::OpenShift(_))).collect();
    places.iter().flat_map(|scope| HOLDERS.iter().flat_map(|holder| granted(holder, *scope))).collect()
}

fn account(holder: &Holder) -> Value {
    let metadata = named(holder.account, Some(names::NAMESPACE), "access");
    let account = ServiceAccount { metadata, ..ServiceAccount::default() };
    with_kind("v1", "ServiceAccount", json!(account))
}

/// A role and its binding; nothing where there are no rights.
fn granted(holder: &Holder, scope: Scope) -> Vec<Value> {
    let rules: Vec<PolicyRule> =
        holder.rights.iter().filter(|right| right.scope == scope).map(rule).collect();
    if rules.is_empty() {
        return Vec::new();
    }
    let namespace = match scope {
        Scope::Cluster => return in_cluster(holder, rules).into(),
        Scope::Own => names::NAMESPACE,
        Scope::OpenShift(namespace) => namespace,
    };
    let metadata = || named(holder.account, Some(namespace), "access");
    let role = Role { metadata: metadata(), rules: Some(rules) };
    let binding =
        RoleBinding { metadata: metadata(), role_ref: of("Role", holder), subjects: Some(subjects(holder)) };
    let version = format!("{RBAC}/v1");
    vec![with_kind(&version, "Role", json!(role)), with_kind(&version, "RoleBinding", json!(binding))]
}

fn in_cluster(holder: &Holder, rules: Vec<PolicyRule>) -> [Value; 2] {
    let metadata = || named(holder.account, None, "access");
    let role = ClusterRole { metadata: metadata(), rules: Some(rules), aggregation_rule: None };
    let binding = ClusterRoleBinding {
        metadata: metadata(),
        role_ref: of("ClusterRole", holder),
        subjects: Some(subjects(holder)),
    };
    let version = format!("{RBAC}/v1");
    [
        with_kind(&version, "ClusterRole", json!(role)),
        with_kind(&version, "ClusterRoleBinding", json!(binding)),
    ]
}

fn rule(right: &Right) -> PolicyRule {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(list(&[right.group])),
        resources: Some(list(&[right.resource])),
        resource_names: (!right.names.is_empty()).then(|| list(right.names)),
        verbs: list(right.verbs),
        ..PolicyRule::default()
    }
}

fn of(kind: &str, holder: &Holder) -> RoleRef {
    RoleRef { api_group: RBAC.to_owned(), kind: kind.to_owned(), name: holder.account.to_owned() }
}

fn subjects(holder: &Holder) -> Vec<Subject> {
    vec![Subject {
        kind: "ServiceAccount".to_owned(),
        name: holder.account.to_owned(),
        namespace: Some(names::NAMESPACE.to_owned()),
        ..Subject::default()
    }]
}

/// An object with what it is at its head, whether its type writes that or not.
pub(super) fn with_kind(api_version: &str, kind: &str, mut object: Value) -> Value {
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    object
}
