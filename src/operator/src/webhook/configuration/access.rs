//! What a webhook's process may do for its certificate: keep one Secret, and say whom to trust in one configuration. The pods' webhook may
//! do nothing else.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use super::{CERTIFICATE_SECRET, CONFIGURATION, DEPLOYMENT, Setup, named};

const RBAC: &str = "rbac.authorization.k8s.io";

/// An account and its rights.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// Who the pods are.
    pub account: ServiceAccount,
    /// Rights in the namespace.
    pub role: Role,
    /// That the account has them.
    pub role_binding: RoleBinding,
    /// Rights in the cluster.
    pub cluster_role: ClusterRole,
    /// That the account has them.
    pub cluster_role_binding: ClusterRoleBinding,
}

/// Builds them.
#[must_use]
pub fn access(setup: &Setup) -> Access {
    let here = || named(DEPLOYMENT, Some(&setup.namespace));
    let subject = || Subject {
        kind: "ServiceAccount".to_owned(),
        name: DEPLOYMENT.to_owned(),
        namespace: Some(setup.namespace.clone()),
        ..Subject::default()
    };
    let of = |kind: &str| RoleRef {
        api_group: RBAC.to_owned(),
        kind: kind.to_owned(),
        name: DEPLOYMENT.to_owned(),
    };
    Access {
        account: ServiceAccount { metadata: here(), ..ServiceAccount::default() },
        role: Role { metadata: here(), rules: Some(keeping(CERTIFICATE_SECRET)) },
        role_binding: RoleBinding { metadata: here(), role_ref: of("Role"), subjects: Some(vec![subject()]) },
        cluster_role: ClusterRole {
            metadata: named(DEPLOYMENT, None),
            aggregation_rule: None,
            rules: Some(vec![trusting("mutatingwebhookconfigurations")]),
        },
        cluster_role_binding: ClusterRoleBinding {
            metadata: named(DEPLOYMENT, None),
            role_ref: of("ClusterRole"),
            subjects: Some(vec![subject()]),
        },
    }
}

/// What keeping a Secret takes, in its namespace. Creating cannot be granted by name: there is no object yet whose name could be compared.
pub(super) fn keeping(secret: &str) -> Vec<PolicyRule> {
    vec![
        rule("", "secrets", &["get", "list", "watch", "update"], Some(secret)),
        rule("", "secrets", &["create"], None),
    ]
}

/// What saying whom to trust takes, in the configuration of ours that is of this resource.
pub(super) fn trusting(resource: &str) -> PolicyRule {
    let verbs = ["get", "list", "watch", "patch"];
    rule("admissionregistration.k8s.io", resource, &verbs, Some(CONFIGURATION))
}

pub(super) fn rule(group: &str, resource: &str, verbs: &[&str], name: Option<&str>) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        resource_names: name.map(|name| vec![name.to_owned()]),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        ..PolicyRule::default()
    }
}
