//! Objects that are to be there, and how they come to be: server-side apply, and only when what is there differs.
//!
//! The API server fills in defaults, so "is it as wanted" means: every field we want is there with our value. A field we no longer want
//! is found by a hash of all we applied, kept in an annotation, which is also how an object is known to be ours. Nothing here decides
//! what is wanted.

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::{Client, ResourceExt};
use peerpods_crds::KATACONFIG_GROUP;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::names;

mod kind;

pub use kind::Kind;

/// What is an administrator's once it is there: we give it its first value. What decisions were made from may be older than an edit.
const THEIRS: [(Kind, &str); 2] =
    [(Kind::RUNTIME_CLASS, "/overhead"), (Kind::PEER_POD_CONFIG, "/spec/limit")];

/// What was applied, as a hash.
pub const APPLIED: &str = "peerpods.io/applied";

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

/// An object that is not to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Which.
    pub object: ObjectRef,
    /// Who must have made it.
    pub whose: Whose,
}

/// Who must have made an object that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// We, or upstream's operator where that can be seen. Somebody else's object of the name stays.
    Ours,
    /// It has a name that nobody else gives: whoever made it.
    Anybodys,
}

impl ObjectRef {
    /// To be deleted if it is ours.
    #[must_use]
    pub fn if_ours(self) -> Removal {
        Removal { object: self, whose: Whose::Ours }
    }

    /// To be deleted.
    #[must_use]
    pub fn in_any_case(self) -> Removal {
        Removal { object: self, whose: Whose::Anybodys }
    }
}

impl std::fmt::Display for Removal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.object.fmt(f)
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

/// Whether an object is one that we applied, or that upstream's operator made for a KataConfig.
#[must_use]
pub fn is_ours(object: &impl ResourceExt) -> bool {
    let owners = object.owner_references().iter();
    let mut owners = owners.filter(|owner| owner.api_version.split('/').next() == Some(KATACONFIG_GROUP));
    object.annotations().contains_key(APPLIED) || owners.any(|owner| owner.kind == "KataConfig")
}

/// Deletes an object with what it owns, if it is one that may be deleted. Ok when it is not there; answers whether it goes.
///
/// # Errors
/// What the API server said.
pub async fn remove(client: &Client, removal: &Removal) -> Result<bool, ObjectError> {
    let Removal { object, whose } = removal;
    let api = object.api(client);
    let Some(there) = api.get_opt(&object.name).await.map_err(failed("read", object))? else {
        return Ok(false);
    };
    if *whose == Whose::Ours && !is_ours(&there) {
        return Ok(false);
    }
    if there.metadata.deletion_timestamp.is_some() {
        return Ok(true);
    }
    let params = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Background),
        // Another of its name may be anybody's.
        preconditions: Some(Preconditions { uid: there.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
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
mod tests;
