//! Owner references: what follows when an owner is gone, or is being deleted with its dependents first or without them. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Step;
use crate::kinds::{self, Kind};
use crate::object;
use crate::store::{Key, Store};
use crate::write::{FOREGROUND, ORPHAN};

/// How an owner that is referred to stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Lives,
    /// Waits for its dependents to go first.
    Waits,
    /// Goes, and leaves its dependents.
    Orphans,
    Gone,
}

/// Everything that owner references ask for now.
pub(super) fn steps(store: &Store) -> Vec<Step> {
    let kinds = kinds::all(store);
    let by_uid: BTreeMap<&str, (&Key, &Arc<Value>)> =
        store.all().map(|(key, object)| (object::uid(object), (key, object))).collect();
    let mut steps = Vec::new();
    let mut blocked = Vec::new();
    for (key, object) in store.all() {
        let references = object::items(object, "/metadata/ownerReferences");
        if references.is_empty() {
            continue;
        }
        let owners: Vec<_> =
            references.iter().map(|reference| (reference, state(&kinds, &by_uid, key, reference))).collect();
        for (reference, owner) in &owners {
            if *owner == Owner::Waits && reference["blockOwnerDeletion"] == true {
                blocked.push(object::text(reference, "/uid").to_owned());
            }
        }
        steps.extend(step(key, object, &owners));
    }
    for (key, object) in store.all().filter(|(_, object)| object::is_being_deleted(object)) {
        let finalizers = object::finalizers(object);
        if finalizers.contains(&FOREGROUND) && !blocked.iter().any(|uid| uid == object::uid(object)) {
            steps.push(Step::Release(key.clone(), FOREGROUND));
        }
        // Dependents forget it in the steps before this one.
        if finalizers.contains(&ORPHAN) {
            steps.push(Step::Release(key.clone(), ORPHAN));
        }
    }
    steps
}

fn step(key: &Key, object: &Value, owners: &[(&Value, Owner)]) -> Option<Step> {
    let is = |wanted: Owner| owners.iter().any(|(_, owner)| *owner == wanted);
    if is(Owner::Orphans) || (is(Owner::Lives) && (is(Owner::Gone) || is(Owner::Waits))) {
        let keep: Vec<_> = owners
            .iter()
            .filter(|(_, owner)| *owner == Owner::Lives)
            .map(|(reference, _)| *reference)
            .collect();
        return Some(Step::Change(key.clone(), json!({"metadata": {"ownerReferences": keep}})));
    }
    if is(Owner::Lives) || object::is_being_deleted(object) {
        return None;
    }
    let policy = if is(Owner::Waits) { "Foreground" } else { "Background" };
    Some(Step::Delete(key.clone(), policy))
}

fn state(
    kinds: &[Kind],
    by_uid: &BTreeMap<&str, (&Key, &Arc<Value>)>,
    dependent: &Key,
    reference: &Value,
) -> Owner {
    let kind = kinds::named(kinds, object::text(reference, "/apiVersion"), object::text(reference, "/kind"));
    // What cannot be looked up is never taken for gone: a kind nobody serves, or an owner in a namespace of something that has none.
    let Some(kind) = kind.filter(|kind| !kind.is_namespaced() || !dependent.namespace.is_empty()) else {
        return Owner::Lives;
    };
    let found = by_uid.get(object::text(reference, "/uid")).filter(|(key, owner)| {
        key.resource == kind.resource()
            && object::name(owner) == object::text(reference, "/name")
            && (key.namespace.is_empty() || key.namespace == dependent.namespace)
    });
    let Some((_, owner)) = found else { return Owner::Gone };
    let finalizers = object::finalizers(owner);
    match object::is_being_deleted(owner) {
        true if finalizers.contains(&FOREGROUND) => Owner::Waits,
        true if finalizers.contains(&ORPHAN) => Owner::Orphans,
        _ => Owner::Lives,
    }
}
