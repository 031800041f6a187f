//! How the parts of an object merge: which lists are associative and by which keys, and which lists and maps are one value.
//!
//! Custom kinds say it in their schema. For built-in ones it is a table by field name: a choice of what controllers of ours use, taken from
//! the markers of the published API types. What is not in it follows the rule: maps field by field, lists as one value.

use serde_json::{Map, Value};

use crate::kinds::Kind;

/// How a list merges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListShape {
    /// As one value.
    Atomic,
    /// Of plain values, each once.
    Set,
    /// Of objects, told apart by these fields.
    Keyed(Vec<String>),
}

/// A place in an object, as far as merging goes.
#[derive(Debug, Clone)]
pub(crate) enum Shape<'a> {
    /// The root of a custom object, which has the metadata of every other kind.
    Root(&'a Value),
    /// A node of a custom kind's schema.
    Schema(&'a Value),
    /// A field of a built-in kind, and the field it is in.
    BuiltIn { parent: String, name: String },
}

/// Lists of objects that merge by key: the field, and its keys.
const KEYED: &[(&str, &[&str])] = &[
    ("addresses", &["type"]),
    ("claims", &["name"]),
    ("conditions", &["type"]),
    ("containers", &["name"]),
    ("env", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("hostAliases", &["ip"]),
    ("hostIPs", &["ip"]),
    ("imagePullSecrets", &["name"]),
    ("initContainers", &["name"]),
    ("matchConditions", &["name"]),
    ("ownerReferences", &["uid"]),
    ("podIPs", &["ip"]),
    ("resourceClaims", &["name"]),
    ("schedulingGates", &["name"]),
    ("secrets", &["name"]),
    ("topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("volumeDevices", &["devicePath"]),
    ("volumeMounts", &["mountPath"]),
    ("volumes", &["name"]),
    ("webhooks", &["name"]),
];

/// Maps that are one value.
const ATOMIC_MAPS: &[&str] = &[
    "configMapKeyRef",
    "fieldRef",
    "involvedObject",
    "labelSelector",
    "namespaceSelector",
    "nodeSelector",
    "objectSelector",
    "podSelector",
    "regarding",
    "requiredDuringSchedulingIgnoredDuringExecution",
    "resourceFieldRef",
    "roleRef",
    "secretKeyRef",
    "selector",
];

impl<'a> Shape<'a> {
    pub(crate) fn of(kind: &'a Kind) -> Self {
        match &kind.custom {
            Some(custom) => Self::Root(&custom.schema),
            None => Self::built_in("", ""),
        }
    }

    fn built_in(parent: &str, name: &str) -> Self {
        Self::BuiltIn { parent: parent.into(), name: name.into() }
    }

    /// The place of a field; `None` where a schema does not have it.
    pub(crate) fn field(&self, field: &str) -> Option<Self> {
        match self {
            Self::Root(_) if ["apiVersion", "kind", "metadata"].contains(&field) => {
                Some(Self::built_in("", field))
            }
            Self::Root(schema) | Self::Schema(schema) => {
                if let Some(found) = schema["properties"].get(field) {
                    return Some(Self::Schema(found));
                }
                match schema.get("additionalProperties") {
                    Some(found) if found.is_object() => Some(Self::Schema(found)),
                    Some(Value::Bool(true)) => Some(Self::Schema(&Value::Null)),
                    // Below what a schema leaves open, anything is declared.
                    _ if schema.is_null() || schema["x-kubernetes-preserve-unknown-fields"] == true => {
                        Some(Self::Schema(&Value::Null))
                    }
                    _ => None,
                }
            }
            Self::BuiltIn { name, .. } => Some(Self::built_in(name, field)),
        }
    }

    /// The place of a list's items.
    pub(crate) fn item(&self) -> Self {
        match self {
            Self::Root(schema) | Self::Schema(schema) => Self::Schema(&schema["items"]),
            Self::BuiltIn { .. } => self.clone(),
        }
    }

    pub(crate) fn list(&self) -> ListShape {
        let keys = |keys: &[&str]| ListShape::Keyed(keys.iter().map(|key| (*key).to_owned()).collect());
        match self {
            Self::Root(schema) | Self::Schema(schema) => match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => ListShape::Set,
                Some("map") => ListShape::Keyed(
                    crate::object::strings(schema, "/x-kubernetes-list-map-keys")
                        .into_iter()
                        .map(Into::into)
                        .collect(),
                ),
                _ => ListShape::Atomic,
            },
            Self::BuiltIn { parent, name } => match (parent.as_str(), name.as_str()) {
                ("metadata", "finalizers") | ("spec", "podCIDRs" | "externalIPs") => ListShape::Set,
                ("spec", "ports") => keys(&["port", "protocol"]),
                ("containers" | "initContainers" | "ephemeralContainers", "ports") => {
                    keys(&["containerPort", "protocol"])
                }
                _ => KEYED
                    .iter()
                    .find(|(field, _)| field == name)
                    .map_or(ListShape::Atomic, |(_, found)| keys(found)),
            },
        }
    }

    pub(crate) fn is_atomic_map(&self) -> bool {
        match self {
            Self::Root(_) => false,
            Self::Schema(schema) => schema["x-kubernetes-map-type"] == "atomic",
            Self::BuiltIn { name, .. } => ATOMIC_MAPS.contains(&name.as_str()),
        }
    }

    /// The keys of a list's item with their values; `None` when one is missing and has no default.
    pub(crate) fn keys_of(&self, keys: &[String], item: &Value) -> Option<Map<String, Value>> {
        keys.iter()
            .map(|key| {
                let value = item.get(key).filter(|value| !value.is_null()).cloned();
                Some((key.clone(), value.or_else(|| self.default_of_key(key))?))
            })
            .collect()
    }

    fn default_of_key(&self, key: &str) -> Option<Value> {
        match self {
            Self::Root(schema) | Self::Schema(schema) => {
                schema["items"]["properties"][key].get("default").cloned()
            }
            Self::BuiltIn { .. } => (key == "protocol").then(|| "TCP".into()),
        }
    }
}
