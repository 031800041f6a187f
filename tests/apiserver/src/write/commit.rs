//! The last step of a write: what must hold of the result, and storing it.

use std::sync::Arc;

use serde_json::Value;

use super::{Call, Draft, immutable};
use crate::kinds::{Kind, Trait};
use crate::object;
use crate::refusal::Refusal;
use crate::schema;
use crate::store::Store;

/// Stores a draft. `None`: the object moved since the draft was made, which has to be made again.
pub(crate) fn commit(store: &mut Store, call: &Call, draft: Draft) -> Result<Option<Arc<Value>>, Refusal> {
    let now = store.get(&draft.key);
    let same = match (now, &draft.before) {
        (Some(now), Some(before)) => Arc::ptr_eq(now, before),
        (None, None) => true,
        _ => false,
    };
    if !same {
        return Ok(None);
    }
    let Draft { key, before, mut object } = draft;
    schema::clean(&call.kind, &mut object);
    let map = object::fields(&mut object);
    if call.kind.custom.is_none() && call.kind.has(Trait::Status) {
        // Built-in kinds always have both, empty if need be: patches count on it.
        for part in ["spec", "status"] {
            object::fields(object::child(map, part));
        }
    }
    let mut faults = schema::faults(&call.kind, before.as_deref(), &object);
    faults.extend(immutable::faults(&call.kind, before.as_deref(), &object));
    if !faults.is_empty() {
        return Err(Refusal::invalid(&call.kind, &key.name, &faults));
    }
    if let Some(before) = &before {
        if is_the_same(before, &object) {
            return Ok(Some(before.clone()));
        }
        count(&call.kind, before, &mut object);
    }
    if call.dry_run {
        return Ok(Some(Arc::new(object)));
    }
    if before.is_some() && is_released(&call.kind, &object) {
        store.put(key.clone(), object);
        return Ok(store.remove(&key));
    }
    Ok(Some(store.put(key, object)))
}

/// A deleted object that nothing holds any longer.
fn is_released(kind: &Kind, object: &Value) -> bool {
    let grace = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64);
    let held = kind.is("Namespace") && !object::items(object, "/spec/finalizers").is_empty();
    object::is_being_deleted(object)
        && object::finalizers(object).is_empty()
        && grace.unwrap_or_default() == 0
        && !held
}

/// Whether nothing changed but when a manager says it wrote.
fn is_the_same(before: &Value, after: &Value) -> bool {
    let plain = |object: &Value| {
        let mut object = object.clone();
        let meta = object::metadata(&mut object);
        meta.remove("resourceVersion");
        for entry in meta.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
            object::fields(entry).remove("time");
        }
        object
    };
    before["metadata"].get("generation") == after["metadata"].get("generation")
        && plain(before) == plain(after)
}

/// Counts a change of what is desired: of anything but metadata, and but the status where that is a subresource.
fn count(kind: &Kind, before: &Value, after: &mut Value) {
    if !kind.has(Trait::Generation) {
        return;
    }
    let desired = |object: &Value| {
        let mut object = object.clone();
        let map = object::fields(&mut object);
        for field in ["metadata", "apiVersion", "kind"] {
            map.remove(field);
        }
        if kind.has(Trait::Status) {
            map.remove("status");
        }
        object
    };
    if desired(before) != desired(after) {
        let generation = before.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or_default();
        object::metadata(after).insert("generation".into(), (generation + 1).into());
    }
}
