//! Changes of what exists: PUT, the patches, and server-side apply.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Call, Draft, create, fits};
use crate::fields;
use crate::kinds::{Trait, decode};
use crate::object;
use crate::patch;
use crate::refusal::{Fault, Refusal};
use crate::schema;
use crate::store::Store;

/// What a PUT makes.
pub(crate) fn replace(store: &Store, call: &Call, body: Value) -> Result<Draft, Refusal> {
    let live = live(store, call)?;
    fits(call, &body)?;
    if object::version(&body).is_empty() && !call.kind.has(Trait::Unconditional) {
        let fault = Fault::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
        return Err(Refusal::invalid(&call.kind, &call.name, &[fault]));
    }
    changed(call, live, body)
}

/// What a JSON, merge or strategic merge patch makes.
pub(crate) fn patch(store: &Store, call: &Call, patch: &patch::Patch) -> Result<Draft, Refusal> {
    let live = live(store, call)?;
    let body = patch.on(&call.kind, call.kind.present(live))?;
    fits(call, &body)?;
    changed(call, live, body)
}

/// What a server-side apply makes: it creates what does not exist.
pub(crate) fn apply(store: &Store, call: &Call, mut wanted: Value) -> Result<Draft, Refusal> {
    if object::text(&wanted, "/apiVersion").is_empty() || object::text(&wanted, "/kind").is_empty() {
        return Err(Refusal::bad_request("invalid object type: apiVersion and kind must be set in an apply"));
    }
    fits(call, &wanted)?;
    if wanted.pointer("/metadata/managedFields").is_some() {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    let sent = wanted.clone();
    decode(&call.kind, &mut wanted)?;
    if let Some(path) = fields::lost("", &sent, &wanted) {
        return Err(fields::untyped(&call.kind, &sent, &format!("{path}: field not declared in schema")));
    }
    call.kind.absorb(&mut wanted);
    fields::only_part(&mut wanted, &call.subresource, call.kind.has(Trait::Status));
    let Some(live) = store.get(&call.key()) else {
        if !call.subresource.is_empty() {
            return Err(Refusal::not_found(&call.kind, &call.name));
        }
        let draft = create::unowned(store, call, wanted.clone())?;
        let object = fields::first_applied(&call.kind, call.manager(), &wanted, draft.object)?;
        return Ok(Draft { object, ..draft });
    };
    let asked = object::version(&wanted);
    if !asked.is_empty() && asked != object::version(live) {
        return Err(Refusal::modified(&call.kind, &call.name));
    }
    let whole = call.kind.defaulted(live);
    let merged = fields::applied(&call.kind, call.manager(), call.force, &whole, &wanted)?;
    let managed = merged.pointer("/metadata/managedFields").cloned();
    let mut object = guarded(call, live, merged)?;
    object::carry(object::metadata(&mut object), "managedFields", managed.as_ref());
    Ok(Draft { key: call.key(), before: Some(live.clone()), object })
}

fn live<'a>(store: &'a Store, call: &Call) -> Result<&'a Arc<Value>, Refusal> {
    store.get(&call.key()).ok_or_else(|| Refusal::not_found(&call.kind, &call.name))
}

/// A whole new state by somebody who is entered in `managedFields` for what it changed.
fn changed(call: &Call, live: &Arc<Value>, mut body: Value) -> Result<Draft, Refusal> {
    let asked = object::version(&body);
    if !asked.is_empty() && asked != object::version(live) {
        return Err(Refusal::modified(&call.kind, &call.name));
    }
    let asked = object::uid(&body);
    if !asked.is_empty() && asked != object::uid(live) {
        let why = format!(
            "Precondition failed: UID in precondition: {asked}, UID in object meta: {}",
            object::uid(live)
        );
        return Err(Refusal::conflict(&call.kind, &call.name, &why));
    }
    decode(&call.kind, &mut body)?;
    call.kind.absorb(&mut body);
    let forget = fields::wants_reset(&body);
    let object = guarded(call, live, body)?;
    let mut before = call.kind.defaulted(live);
    if forget {
        object::metadata(&mut before).remove("managedFields");
    }
    let object = fields::updated(&call.kind, call.manager(), Some(&before), object);
    Ok(Draft { key: call.key(), before: Some(live.clone()), object })
}

/// The new state with everything as it was that this request may not touch.
fn guarded(call: &Call, live: &Value, mut body: Value) -> Result<Value, Refusal> {
    if call.kind.is("Secret") {
        create::secret(&mut body);
    }
    match call.subresource.as_str() {
        "status" => body = with_status_of(call, live, &body),
        "finalize" => {
            let finalizers = body.pointer("/spec/finalizers").cloned();
            body = live.clone();
            object::carry(object::fields(&mut body["spec"]), "finalizers", finalizers.as_ref());
        }
        _ if call.kind.has(Trait::Status) => {
            object::carry(object::fields(&mut body), "status", live.get("status"))
        }
        _ => {}
    }
    let map = object::fields(&mut body);
    map.insert("apiVersion".into(), call.kind.api_version().into());
    map.insert("kind".into(), call.kind.kind.clone().into());
    let meta = object::metadata(&mut body);
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "generateName",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
    ] {
        object::carry(meta, field, live["metadata"].get(field));
    }
    no_new_finalizers(call, live, &body)?;
    schema::clean(&call.kind, &mut body);
    Ok(body)
}

/// Of a write to `/status` only the status counts; built-in kinds let labels and annotations pass as well.
fn with_status_of(call: &Call, live: &Value, body: &Value) -> Value {
    let mut object = live.clone();
    object::carry(object::fields(&mut object), "status", body.get("status"));
    if call.kind.custom.is_none() {
        for field in ["labels", "annotations"] {
            object::carry(object::metadata(&mut object), field, body["metadata"].get(field));
        }
    }
    object
}

fn no_new_finalizers(call: &Call, live: &Value, body: &Value) -> Result<(), Refusal> {
    let old = object::finalizers(live);
    let new: Vec<_> = object::finalizers(body).into_iter().filter(|one| !old.contains(one)).collect();
    if !object::is_being_deleted(live) || new.is_empty() {
        return Ok(());
    }
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers {new:?}"
    );
    Err(Refusal::invalid(&call.kind, &call.name, &[Fault::forbidden("metadata.finalizers", &why)]))
}
