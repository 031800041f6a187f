//! What is changed in an admitted pod, as a JSON patch.
//!
//! All resources of all containers and of the pod as a whole go, as upstream has it: cpu and memory are the VM's, not the node's; so are
//! huge pages, ephemeral storage (images and empty directories are in the VM) and GPUs. Whatever else a node advertises does not reach the
//! VM either. What the scheduler must know of the node is one thing, that it may have one VM more, and the first container asks for that.
//! Every operation is an `add`, which replaces what is there, so the patch fits whatever the pod looked like.

use std::collections::{BTreeMap, BTreeSet};

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, RemoveOperation};
use k8s_openapi::api::core::v1::{Pod, PodSpec, ResourceRequirements};
use serde_json::{Value, json};

use super::containers;
use super::size::{CPU, GPUS, MEMORY};

/// The operations that make the pod one that gets a VM.
pub(super) fn operations(
    pod: &Pod,
    spec: &PodSpec,
    annotations: &BTreeMap<String, String>,
    resource: &str,
) -> Vec<PatchOperation> {
    let mut operations = annotating(pod, annotations);
    for member in containers::all(spec) {
        let first = member.pointer == "/spec/containers/0";
        let wanted = if first { one_of(resource) } else { ResourceRequirements::default() };
        if member.container.resources.clone().unwrap_or_default() != wanted {
            let value = if first {
                json!({"limits": {resource: "1"}, "requests": {resource: "1"}})
            } else {
                json!({})
            };
            operations.push(add(tokens(&format!("{}/resources", member.pointer)), value));
        }
    }
    if spec.resources.is_some() {
        operations.push(PatchOperation::Remove(RemoveOperation { path: tokens("/spec/resources") }));
    }
    operations
}

fn annotating(pod: &Pod, annotations: &BTreeMap<String, String>) -> Vec<PatchOperation> {
    if annotations.is_empty() {
        return Vec::new();
    }
    if pod.metadata.annotations.is_none() {
        return vec![add(tokens("/metadata/annotations"), json!(annotations))];
    }
    let one = |(key, value): (&String, &String)| {
        add(PointerBuf::from_tokens(["metadata", "annotations", key]), json!(value))
    };
    annotations.iter().map(one).collect()
}

fn one_of(resource: &str) -> ResourceRequirements {
    let one = || {
        Some(
            [(resource.to_owned(), k8s_openapi::apimachinery::pkg::api::resource::Quantity("1".to_owned()))]
                .into(),
        )
    };
    ResourceRequirements { limits: one(), requests: one(), ..ResourceRequirements::default() }
}

fn add(path: PointerBuf, value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path, value })
}

/// A pointer of parts that need no escaping.
fn tokens(path: &str) -> PointerBuf {
    PointerBuf::from_tokens(path.split('/').skip(1))
}

/// Resources that are taken out and that nothing of the VM's size stands for.
pub(super) fn dropped<'a>(spec: &'a PodSpec, resource: &str) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    let whole = spec.resources.as_ref();
    let each = containers::all(spec).filter_map(|member| member.container.resources.as_ref());
    for resources in each.chain(whole) {
        names.extend(
            resources.limits.iter().chain(&resources.requests).flatten().map(|(name, _)| name.as_str()),
        );
        if resources.claims.iter().flatten().next().is_some() {
            names.insert("claims");
        }
    }
    names.retain(|name| ![CPU, MEMORY, resource].contains(name) && !GPUS.contains(name));
    names
}
