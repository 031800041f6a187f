//! Which kinds are served: the table of built-in ones, and what stored `CustomResourceDefinition`s define.
//!
//! What is built in behaves by its row; custom kinds carry their schema. Not here: what a write does with either (`write`).

mod decode;
mod events;
mod quantity;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::object;
use crate::store::{Key, Store};

pub(crate) use decode::decode;

/// What a built-in kind is. One line of the table each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    short: &'static str,
    traits: &'static [Trait],
}

/// How kinds differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trait {
    /// Lives in a namespace.
    Namespaced,
    /// `/status` is a subresource; the main resource leaves the status alone.
    Status,
    /// A status given at creation is kept (only `Node` does that).
    StatusAtCreation,
    /// Counts changes of what is desired in `metadata.generation`.
    Generation,
    /// May be replaced without naming a resource version.
    Unconditional,
}

use Trait::{Generation, Namespaced, Status, StatusAtCreation, Unconditional};

const fn row(
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    short: &'static str,
    traits: &'static [Trait],
) -> Row {
    Row { group, version: "v1", plural, kind, short, traits }
}

const BUILT_IN: &[Row] = &[
    row("", "nodes", "Node", "no", &[Status, StatusAtCreation, Unconditional]),
    row("", "namespaces", "Namespace", "ns", &[Status, Unconditional]),
    row("", "pods", "Pod", "po", &[Namespaced, Status, Generation, Unconditional]),
    row("", "secrets", "Secret", "", &[Namespaced, Unconditional]),
    row("", "configmaps", "ConfigMap", "cm", &[Namespaced, Unconditional]),
    row("", "services", "Service", "svc", &[Namespaced, Status, Unconditional]),
    row("", "serviceaccounts", "ServiceAccount", "sa", &[Namespaced, Unconditional]),
    row("", "events", "Event", "ev", &[Namespaced, Unconditional]),
    row("events.k8s.io", "events", "Event", "ev", &[Namespaced, Unconditional]),
    row("apps", "daemonsets", "DaemonSet", "ds", &[Namespaced, Status, Generation, Unconditional]),
    row("apps", "deployments", "Deployment", "deploy", &[Namespaced, Status, Generation, Unconditional]),
    row("apps", "replicasets", "ReplicaSet", "rs", &[Namespaced, Status, Generation, Unconditional]),
    row("apps", "statefulsets", "StatefulSet", "sts", &[Namespaced, Status, Generation, Unconditional]),
    row("batch", "jobs", "Job", "", &[Namespaced, Status, Generation, Unconditional]),
    row("batch", "cronjobs", "CronJob", "cj", &[Namespaced, Status, Generation, Unconditional]),
    row("node.k8s.io", "runtimeclasses", "RuntimeClass", "", &[]),
    row("rbac.authorization.k8s.io", "roles", "Role", "", &[Namespaced, Unconditional]),
    row("rbac.authorization.k8s.io", "rolebindings", "RoleBinding", "", &[Namespaced, Unconditional]),
    row("rbac.authorization.k8s.io", "clusterroles", "ClusterRole", "", &[Unconditional]),
    row("rbac.authorization.k8s.io", "clusterrolebindings", "ClusterRoleBinding", "", &[Unconditional]),
    row("coordination.k8s.io", "leases", "Lease", "", &[Namespaced]),
    row("policy", "poddisruptionbudgets", "PodDisruptionBudget", "pdb", &[Namespaced, Status, Generation]),
    row("networking.k8s.io", "networkpolicies", "NetworkPolicy", "netpol", &[Namespaced, Generation]),
    row("scheduling.k8s.io", "priorityclasses", "PriorityClass", "pc", &[Generation, Unconditional]),
    row(
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        "",
        &[Generation],
    ),
    row(
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        "",
        &[Generation],
    ),
    row("apiextensions.k8s.io", CRDS, "CustomResourceDefinition", "crd", &[Status, Generation]),
];

const CRDS: &str = "customresourcedefinitions";

/// A served kind in one of its versions.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) short: Vec<String>,
    traits: Vec<Trait>,
    /// What a definition says, for a custom kind.
    pub(crate) custom: Option<Custom>,
}

/// What only custom kinds have.
#[derive(Debug, Clone)]
pub(crate) struct Custom {
    /// The structural schema.
    pub(crate) schema: Arc<Value>,
    /// Paths that field selectors may name, without the leading dot.
    pub(crate) selectable: Vec<String>,
}

impl Kind {
    fn built_in(row: &Row) -> Self {
        Self {
            group: row.group.into(),
            version: row.version.into(),
            plural: row.plural.into(),
            singular: row.kind.to_lowercase(),
            kind: row.kind.into(),
            short: Some(row.short).filter(|short| !short.is_empty()).map(Into::into).into_iter().collect(),
            traits: row.traits.to_vec(),
            custom: None,
        }
    }

    /// The kinds a definition serves, one a version. While it is being deleted too: its objects have to go first.
    fn defined(definition: &Value) -> Vec<Self> {
        let spec = &definition["spec"];
        object::items(spec, "/versions")
            .iter()
            .filter(|version| version["served"] == true)
            .map(|version| Self {
                group: object::text(spec, "/group").into(),
                version: object::text(version, "/name").into(),
                plural: object::text(spec, "/names/plural").into(),
                singular: object::text(spec, "/names/singular").into(),
                kind: object::text(spec, "/names/kind").into(),
                short: object::strings(spec, "/names/shortNames").into_iter().map(Into::into).collect(),
                traits: custom_traits(spec, version),
                custom: Some(Custom {
                    schema: Arc::new(version["schema"]["openAPIV3Schema"].clone()),
                    selectable: object::items(version, "/selectableFields")
                        .iter()
                        .map(|field| object::text(field, "/jsonPath").trim_start_matches('.').to_owned())
                        .collect(),
                }),
            })
            .collect()
    }

    pub(crate) fn has(&self, wanted: Trait) -> bool {
        self.traits.contains(&wanted)
    }

    pub(crate) fn is_namespaced(&self) -> bool {
        self.has(Namespaced)
    }

    /// How it is kept: the same for all its versions, and for events in either group.
    pub(crate) fn resource(&self) -> String {
        if self.kind == "Event" { "events".into() } else { self.qualified() }
    }

    /// The plural with its group, as messages have it.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    pub(crate) fn is(&self, kind: &str) -> bool {
        self.custom.is_none() && self.kind == kind
    }

    pub(crate) fn key(&self, namespace: &str, name: &str) -> Key {
        Key::new(self.resource(), if self.is_namespaced() { namespace } else { "" }, name)
    }

    /// A stored object with what its schema has come to default since.
    pub(crate) fn defaulted(&self, stored: &Value) -> Value {
        let mut object = stored.clone();
        if let Some(custom) = &self.custom {
            crate::schema::default(&custom.schema, &mut object);
        }
        object
    }

    /// A stored object as clients of this version see it.
    pub(crate) fn present(&self, stored: &Value) -> Value {
        let mut shown = self.defaulted(stored);
        if self.group == "events.k8s.io" {
            events::to_new(&mut shown);
        }
        let map = object::fields(&mut shown);
        map.insert("apiVersion".into(), self.api_version().into());
        map.insert("kind".into(), self.kind.clone().into());
        shown
    }

    /// What clients send, as it is kept.
    pub(crate) fn absorb(&self, sent: &mut Value) {
        if self.group == "events.k8s.io" {
            events::to_core(sent);
        }
    }

    /// The entry in the group's resource list.
    pub(crate) fn discovery(&self) -> Vec<Value> {
        let verbs =
            json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
        let main = json!({
            "name": self.plural, "singularName": self.singular, "namespaced": self.is_namespaced(),
            "kind": self.kind, "verbs": verbs, "shortNames": self.short,
        });
        let sub = |name: &str, kind: &str, verbs: &[&str]| {
            json!({
                "name": format!("{}/{name}", self.plural), "singularName": "",
                "namespaced": self.is_namespaced(), "kind": kind, "verbs": verbs,
            })
        };
        let mut list = vec![main];
        if self.has(Status) {
            list.push(sub("status", &self.kind, &["get", "patch", "update"]));
        }
        if self.is("Pod") {
            let mut eviction = sub("eviction", "Eviction", &["create"]);
            eviction["group"] = "policy".into();
            eviction["version"] = "v1".into();
            list.push(eviction);
        }
        list
    }
}

fn custom_traits(spec: &Value, version: &Value) -> Vec<Trait> {
    let mut traits = vec![Generation];
    if spec["scope"] == "Namespaced" {
        traits.push(Namespaced);
    }
    if version.pointer("/subresources/status").is_some() {
        traits.push(Status);
    }
    traits
}

/// Every kind that is served now.
pub(crate) fn all(store: &Store) -> Vec<Kind> {
    let defined = store.list("customresourcedefinitions.apiextensions.k8s.io", "");
    let defined = defined.flat_map(|(_, definition)| Kind::defined(definition));
    BUILT_IN.iter().map(Kind::built_in).chain(defined).collect()
}

/// The kind behind a path.
pub(crate) fn by_path(store: &Store, group: &str, version: &str, plural: &str) -> Option<Kind> {
    all(store).into_iter().find(|k| k.group == group && k.version == version && k.plural == plural)
}

/// The one among `kinds` that a reference names, in any of its versions.
pub(crate) fn named<'a>(kinds: &'a [Kind], api_version: &str, kind: &str) -> Option<&'a Kind> {
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    kinds.iter().find(|k| k.group == group && k.kind == kind)
}

/// The kind of a stored object's key.
pub(crate) fn by_resource(store: &Store, resource: &str) -> Option<Kind> {
    all(store).into_iter().find(|k| k.resource() == resource)
}
