//! Objects that are to be there, and how they come to be: server-side apply, and only when what is there differs.
//!
//! The API server fills in defaults, so "is it as wanted" means: every field we want is there with our value. A field we no longer want
//! is found by a hash of all we applied, kept in an annotation. Nothing here decides what is wanted.

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PropagationPolicy};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::names;

/// What is an administrator's once it is there: we give it its first value. What decisions were made from may be older than an edit.
const THEIRS: [(Kind, &str); 2] =
    [(Kind::RUNTIME_CLASS, "/overhead"), (Kind::PEER_POD_CONFIG, "/spec/limit")];

/// What was applied, as a hash.
pub const APPLIED: &str = "peerpods.io/applied";

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

    fn api_version(self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; none for what has none.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl ObjectRef {
    /// An object of the cluster.
    #[must_use]
    pub fn cluster(kind: Kind, name: &str) -> Self {
        Self { kind, namespace: None, name: name.to_owned() }
    }

    /// An object of a namespace.
    #[must_use]
    pub fn namespaced(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: Some(namespace.to_owned()), name: name.to_owned() }
    }

    /// A client for objects beside it.
    #[must_use]
    pub fn api(&self, client: &Client) -> Api<DynamicObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.kind.resource()),
            None => Api::all_with(client.clone(), &self.kind.resource()),
        }
    }
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind.kind, self.name),
            None => write!(f, "{} {}", self.kind.kind, self.name),
        }
    }
}

/// An object as it is to be: the fields that are ours.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// Which.
    pub object: ObjectRef,
    /// Everything but apiVersion, kind, name and namespace.
    pub body: Value,
}

impl Desired {
    /// From an object of a type of its own.
    #[must_use]
    pub fn of(object: ObjectRef, typed: &impl Serialize) -> Self {
        let mut body = json!(typed);
        let without = |fields: &mut Value, names: [&str; 2]| {
            fields.as_object_mut().map(|fields| names.map(|name| fields.remove(name)))
        };
        without(&mut body, ["apiVersion", "kind"]);
        without(&mut body["metadata"], ["name", "namespace"]);
        Self { object, body }
    }

    /// Adds the controlling owner.
    #[must_use]
    pub fn owned_by(mut self, owner: &Value) -> Self {
        self.body["metadata"]["ownerReferences"] = json!([owner]);
        self
    }

    /// The whole object as it is applied.
    #[must_use]
    pub fn whole(&self) -> Value {
        let mut whole = self.body.clone();
        let hash = self.hash();
        whole["apiVersion"] = self.object.kind.api_version().into();
        whole["kind"] = self.object.kind.kind.into();
        whole["metadata"]["name"] = self.object.name.clone().into();
        if let Some(namespace) = &self.object.namespace {
            whole["metadata"]["namespace"] = namespace.clone().into();
        }
        whole["metadata"]["annotations"][APPLIED] = hash.into();
        whole
    }

    fn hash(&self) -> String {
        // Value's maps are sorted: the same object has the same text.
        let digest = Sha256::digest(self.body.to_string().as_bytes());
        hex::encode(&digest[..8])
    }
}

/// What became of an object that is to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was as wanted.
    Unchanged,
    /// It was not there.
    Created,
    /// It was there and differed.
    Repaired,
}

/// Why an object could not be made as wanted.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {object}")]
pub struct ObjectError {
    doing: &'static str,
    object: String,
    /// What the API server said.
    pub source: kube::Error,
}

fn failed(doing: &'static str, object: &ObjectRef) -> impl FnOnce(kube::Error) -> ObjectError {
    let object = object.to_string();
    move |source| ObjectError { doing, object, source }
}

/// Makes an object as wanted. Nothing is written when it is so already.
///
/// # Errors
/// What the API server said. May be dropped at any await and called again.
pub async fn apply(client: &Client, desired: &Desired) -> Result<Applied, ObjectError> {
    let api = desired.object.api(client);
    let there = api.get_opt(&desired.object.name).await.map_err(failed("read", &desired.object))?;
    let mut whole = desired.whole();
    if let Some(there) = &there {
        leave_theirs(desired.object.kind, there, &mut whole);
    }
    let outcome = match &there {
        None => Applied::Created,
        Some(object) if is_as_wanted(object, &whole) => return Ok(Applied::Unchanged),
        Some(_) => Applied::Repaired,
    };
    // An edit of a field that is left to others must not be undone because it came after the look.
    let shared = THEIRS.iter().any(|(kind, _)| *kind == desired.object.kind);
    if let Some(version) = there.as_ref().filter(|_| shared).and_then(ResourceExt::resource_version) {
        whole["metadata"]["resourceVersion"] = version.into();
    }
    // What is ours is ours: a person's edit of such a field is undone, which is what repairing drift means.
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    let answer = api.patch(&desired.object.name, &params, &Patch::Apply(&whole)).await;
    let answer = answer.map_err(failed("apply", &desired.object))?;
    // A list that others add to is longer than ours, and nothing came of applying our part of it once more.
    if there.is_some_and(|there| there.resource_version() == answer.resource_version()) {
        return Ok(Applied::Unchanged);
    }
    tracing::info!(object = %desired.object, ?outcome, "applied");
    Ok(outcome)
}

/// Deletes an object with what it owns. Ok when it is not there; answers whether it was.
///
/// # Errors
/// What the API server said.
pub async fn remove(client: &Client, object: &ObjectRef) -> Result<bool, ObjectError> {
    let api = object.api(client);
    let Some(there) = api.get_opt(&object.name).await.map_err(failed("read", object))? else {
        return Ok(false);
    };
    if there.metadata.deletion_timestamp.is_some() {
        return Ok(true);
    }
    let params =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    match api.delete(&object.name, &params).await {
        Ok(_) => {
            tracing::info!(%object, "deleted");
            Ok(true)
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
        Err(error) => Err(failed("delete", object)(error)),
    }
}

fn leave_theirs(kind: Kind, there: &DynamicObject, whole: &mut Value) {
    for (_, field) in THEIRS.iter().filter(|(of, _)| *of == kind) {
        if let (Some(there), Some(ours)) = (there.data.pointer(field), whole.pointer_mut(field)) {
            *ours = there.clone();
        }
    }
}

fn is_as_wanted(there: &DynamicObject, whole: &Value) -> bool {
    // A hash of another form of ours is a reason to apply, also when what we want now is there.
    let same_form = there.annotations().get(APPLIED).map(String::as_str)
        == whole["metadata"]["annotations"][APPLIED].as_str();
    same_form && serde_json::to_value(there).is_ok_and(|there| has(&there, whole))
}

/// Whether `there` has everything that `wanted` has. Lists are the same length; what fills itself in does so inside their entries.
fn has(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| match there.get(key) {
                Some(there) => has(there, wanted),
                // The API server drops what is empty.
                None => is_empty(wanted),
            })
        }
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len() && there.iter().zip(wanted).all(|(there, wanted)| has(there, wanted))
        }
        (there, wanted) => there == wanted,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_fills_in_is_no_difference_and_what_somebody_changed_is() {
        let wanted =
            json!({ "spec": { "replicas": 2, "containers": [{ "name": "a", "args": [] }], "labels": {} } });
        for (there, as_wanted) in [
            (
                json!({ "spec": { "replicas": 2, "containers": [{ "name": "a", "pull": "Always" }], "more": 1 } }),
                true,
            ),
            (json!({ "spec": { "replicas": 3, "containers": [{ "name": "a" }] } }), false),
            (json!({ "spec": { "replicas": 2, "containers": [{ "name": "b" }] } }), false),
            (json!({ "spec": { "replicas": 2, "containers": [{ "name": "a" }, { "name": "b" }] } }), false),
            (json!({ "spec": { "replicas": 2 } }), false),
            (json!({}), false),
        ] {
            assert_eq!(has(&there, &wanted), as_wanted, "{there}");
        }
    }

    #[test]
    fn what_is_an_administrators_stays_however_old_the_decision_is() {
        let object = |overhead: Value| -> DynamicObject {
            serde_json::from_value(
                json!({ "metadata": { "name": "kata" }, "handler": "x", "overhead": overhead }),
            )
            .unwrap()
        };
        let wanted = json!({ "handler": "kata", "overhead": { "podFixed": { "memory": "350Mi" } } });
        for (kind, there, expected) in [
            (Kind::RUNTIME_CLASS, json!({ "podFixed": { "memory": "1Gi" } }), "1Gi"),
            (Kind::DAEMON_SET, json!({ "podFixed": { "memory": "1Gi" } }), "350Mi"),
        ] {
            let mut whole = wanted.clone();
            leave_theirs(kind, &object(there), &mut whole);
            assert_eq!(
                whole,
                json!({ "handler": "kata", "overhead": { "podFixed": { "memory": expected } } })
            );
        }
    }

    #[test]
    fn a_field_we_no_longer_want_changes_the_hash() {
        let object = ObjectRef::cluster(Kind::RUNTIME_CLASS, "kata");
        let with = Desired {
            object: object.clone(),
            body: json!({ "handler": "kata", "overhead": { "podFixed": {} } }),
        };
        let without = Desired { object, body: json!({ "handler": "kata" }) };
        assert_ne!(with.hash(), without.hash());
        assert_eq!(with.hash(), with.clone().hash());
        assert_eq!(with.whole()["apiVersion"], "node.k8s.io/v1");
    }
}
