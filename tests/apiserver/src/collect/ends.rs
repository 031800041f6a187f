//! The ends of namespaces and of definitions: what is in them goes first. Pure.

use super::{CRD_CLEANUP, Step};
use crate::object;
use crate::store::Store;

/// Everything that a namespace or definition being deleted asks for now.
pub(super) fn steps(store: &Store) -> Vec<Step> {
    let mut steps = Vec::new();
    for (key, namespace) in store.list("namespaces", "") {
        if object::is_being_deleted(namespace) && !object::items(namespace, "/spec/finalizers").is_empty() {
            let content: Vec<_> = store.all().filter(|(inner, _)| inner.namespace == key.name).collect();
            if content.is_empty() {
                steps.push(Step::Finalize(key.clone()));
            }
            let fresh = content.into_iter().filter(|(_, object)| !object::is_being_deleted(object));
            steps.extend(fresh.map(|(inner, _)| Step::Delete(inner.clone(), "Background")));
        }
    }
    for (key, definition) in store.list("customresourcedefinitions.apiextensions.k8s.io", "") {
        if object::is_being_deleted(definition) && object::finalizers(definition).contains(&CRD_CLEANUP) {
            let content: Vec<_> = store.list(&key.name, "").collect();
            if content.is_empty() {
                steps.push(Step::Release(key.clone(), CRD_CLEANUP));
            }
            let fresh = content.into_iter().filter(|(_, object)| !object::is_being_deleted(object));
            steps.extend(fresh.map(|(inner, _)| Step::Delete(inner.clone(), "Background")));
        }
    }
    steps
}
