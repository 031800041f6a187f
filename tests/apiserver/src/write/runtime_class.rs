//! What a server does to a new pod that names a runtime class: the class must be there, and its overhead and scheduling become the pod's.

use serde_json::{Value, json};

use super::Call;
use crate::object;
use crate::refusal::Refusal;
use crate::store::{Key, Store};

/// Lays the pod's runtime class over it, before any webhook sees the pod.
pub(super) fn lay_over(store: &Store, call: &Call, pod: &mut Value) -> Result<(), Refusal> {
    let class = object::text(pod, "/spec/runtimeClassName").to_owned();
    if !call.kind.is("Pod") || class.is_empty() {
        return Ok(());
    }
    let refused =
        |why: &str| Refusal::forbidden(&call.kind, object::name(pod), &format!("pod rejected: {why}"));
    let found = store
        .get(&Key::new("runtimeclasses.node.k8s.io", "", class.as_str()))
        .ok_or_else(|| refused(&format!("RuntimeClass {class:?} not found")))?;
    let overhead = found.pointer("/overhead/podFixed");
    let selector = found.pointer("/scheduling/nodeSelector").and_then(Value::as_object);
    let own = pod.pointer("/spec/overhead");
    if own.is_some() && own != overhead {
        return Err(refused("Pod's Overhead doesn't match RuntimeClass's defined Overhead"));
    }
    for (key, value) in selector.into_iter().flatten() {
        let own = pod["spec"]["nodeSelector"].get(key);
        if own.is_some_and(|own| own != value) {
            return Err(refused(&format!("conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}")));
        }
    }
    let spec = object::fields(&mut pod["spec"]);
    object::carry(spec, "overhead", overhead);
    if let Some(selector) = selector {
        object::fields(object::child(spec, "nodeSelector")).extend(selector.clone());
    }
    let tolerations = object::items(found, "/scheduling/tolerations");
    if !tolerations.is_empty() {
        let mut all = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
        all.extend(tolerations.iter().cloned());
        spec.insert("tolerations".into(), json!(all));
    }
    Ok(())
}
