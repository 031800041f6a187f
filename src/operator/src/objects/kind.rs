//! Kinds of objects: all that the operator makes, changes or deletes.

use kube::core::{ApiResource, GroupVersionKind};

/// A kind of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    /// The API group; empty for the core.
    pub group: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// Its name in paths.
    pub plural: &'static str,
}

macro_rules! kinds {
    ($($name:ident = $group:literal, $version:literal, $kind:literal, $plural:literal, $doc:literal;)*) => {
        impl Kind {
            $(#[doc = $doc] pub const $name: Self = Self { group: $group, version: $version, kind: $kind, plural: $plural };)*
        }
    };
}

kinds! {
    SECRET = "", "v1", "Secret", "secrets", "Secrets.";
    CONFIG_MAP = "", "v1", "ConfigMap", "configmaps", "ConfigMaps.";
    SERVICE = "", "v1", "Service", "services", "Services.";
    SERVICE_ACCOUNT = "", "v1", "ServiceAccount", "serviceaccounts", "ServiceAccounts.";
    DAEMON_SET = "apps", "v1", "DaemonSet", "daemonsets", "DaemonSets.";
    DEPLOYMENT = "apps", "v1", "Deployment", "deployments", "Deployments.";
    DISRUPTION_BUDGET = "policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", "PodDisruptionBudgets.";
    ROLE = "rbac.authorization.k8s.io", "v1", "Role", "roles", "Roles.";
    ROLE_BINDING = "rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", "RoleBindings.";
    CLUSTER_ROLE = "rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", "ClusterRoles.";
    CLUSTER_ROLE_BINDING = "rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", "ClusterRoleBindings.";
    RUNTIME_CLASS = "node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", "RuntimeClasses.";
    MUTATING_WEBHOOKS = "admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations",
        "MutatingWebhookConfigurations.";
    VALIDATING_WEBHOOKS = "admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations",
        "ValidatingWebhookConfigurations.";
    MACHINE_CONFIG = "machineconfiguration.openshift.io", "v1", "MachineConfig", "machineconfigs", "OpenShift's MachineConfigs.";
    MACHINE_CONFIG_POOL = "machineconfiguration.openshift.io", "v1", "MachineConfigPool", "machineconfigpools",
        "OpenShift's MachineConfigPools.";
    CONTAINER_RUNTIME_CONFIG = "machineconfiguration.openshift.io", "v1", "ContainerRuntimeConfig", "containerruntimeconfigs",
        "OpenShift's ContainerRuntimeConfigs.";
    SECURITY_CONTEXT_CONSTRAINTS = "security.openshift.io", "v1", "SecurityContextConstraints", "securitycontextconstraints",
        "OpenShift's SecurityContextConstraints.";
    PEER_POD_CONFIG = "confidentialcontainers.org", "v1alpha1", "PeerPodConfig", "peerpodconfigs", "PeerPodConfigs.";
}

impl Kind {
    /// For kube's untyped client.
    #[must_use]
    pub fn resource(self) -> ApiResource {
        ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk(self.group, self.version, self.kind),
            self.plural,
        )
    }

    pub(super) fn api_version(self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}
