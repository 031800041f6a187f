//! What happens behind the clients' backs, as a controller manager does it: dependents of what is gone are deleted, and namespaces and
//! definitions that are being deleted are emptied.
//!
//! *Observe* the whole store, *decide* in [`owners`] and [`ends`], which are pure, *act* by the same writes that clients make. It runs after every
//! change, at once: what a real cluster does within seconds is here done within a moment, but never before the client has its answer.

mod ends;
mod owners;

use std::sync::Arc;

use serde_json::json;

use crate::kinds;
use crate::patch::Patch;
use crate::server::Shared;
use crate::store::{Key, Store};
use crate::write::{self, Call, Deletion};

/// What keeps a definition until its objects are gone.
pub(crate) const CRD_CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Something to do about an object.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// Delete it, with this propagation policy.
    Delete(Key, &'static str),
    /// Merge this into it.
    Change(Key, serde_json::Value),
    /// Take this out of its finalizers.
    Release(Key, &'static str),
    /// Let a namespace go.
    Finalize(Key),
}

/// Collects until the server is gone.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut changed = shared.changed.subscribe();
    loop {
        let steps = {
            let store = shared.store();
            [owners::steps(&store), ends::steps(&store)].concat()
        };
        for step in &steps {
            // Whatever is refused has moved, and is looked at again after that move.
            let _ = shared.change(|store| act(store, step));
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// One step. `None` when there is nothing to do it to.
fn act(store: &mut Store, step: &Step) -> Option<()> {
    let (Step::Delete(key, _) | Step::Change(key, _) | Step::Release(key, _) | Step::Finalize(key)) = step;
    let call = Call {
        kind: kinds::by_resource(store, &key.resource)?,
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        subresource: if matches!(step, Step::Finalize(_)) { "finalize".into() } else { String::new() },
        manager: "kube-controller-manager".into(),
        force: false,
        dry_run: false,
    };
    let change = match step {
        Step::Delete(_, policy) => {
            let how = Deletion::of(&json!({"propagationPolicy": policy}));
            let removal = write::delete(store, &call, &how).ok()?;
            return write::carry_out(store, &call, &how, removal).ok().map(drop);
        }
        Step::Change(_, change) => change.clone(),
        Step::Release(_, finalizer) => {
            let live = store.get(key)?.clone();
            let rest: Vec<_> =
                crate::object::finalizers(&live).into_iter().filter(|one| one != finalizer).collect();
            json!({"metadata": {"finalizers": rest}})
        }
        Step::Finalize(_) => json!({"spec": {"finalizers": []}}),
    };
    let draft = write::patch(store, &call, &Patch::Merge(change)).ok()?;
    write::commit(store, &call, draft).ok().flatten().map(drop)
}

#[cfg(test)]
mod tests;
