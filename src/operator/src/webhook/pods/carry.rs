//! How a pod's size reaches its VM: by annotations that shims pass on to the node service.
//!
//! A pod may have such annotations already, from its user or from an earlier call of ours. A user's is never made smaller: the larger of
//! what he wrote and what the containers ask for holds. When we were called before (the pod asks for a VM already), containers have been
//! added since by another webhook, and what they ask for comes on top; ours are stripped and ask for nothing.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use peerpods_podvm::annotations::{AnnotationErrors, SizeAsked, keys};

use super::containers;
use super::settings::Settings;
use super::size::Wanted;
use crate::webhook::faults::{Fault, shown};

const MIB: u64 = 1 << 20;

/// The annotations to be set.
///
/// # Errors
/// Annotations that nobody could read, whether they are there or would be set.
pub(super) fn annotations(
    pod: &Pod,
    spec: &PodSpec,
    wanted: Wanted,
    settings: &Settings,
) -> Result<BTreeMap<String, String>, Vec<Fault>> {
    let existing = pod.metadata.annotations.as_ref();
    let has = |key: &str| existing.and_then(|annotations| annotations.get(key));
    let sizes = [keys::VCPUS, keys::MEMORY, keys::GPUS].into_iter();
    let present = sizes.filter_map(|key| has(key).map(|value| (key.to_owned(), value.clone()))).collect();
    let asked = SizeAsked::from_annotations(&present).map_err(unreadable)?;
    let before = asks_for_a_vm(spec, &settings.resource);
    let mut set = BTreeMap::new();
    let parts = [
        (keys::VCPUS, asked.vcpus.map_or(0, u128::from), wanted.cpu.units_of(1)),
        (keys::MEMORY, asked.memory_mib.map_or(0, u128::from), wanted.memory.units_of(MIB)),
        (keys::GPUS, u128::from(asked.gpus), wanted.gpus.units_of(1)),
    ];
    for (key, asked, wanted) in parts {
        let size = if before { asked.saturating_add(wanted) } else { asked.max(wanted) };
        if size > asked {
            set.insert(key.to_owned(), size.to_string());
        }
    }
    too_large(&set)?;
    if let Some(gpus) = set.get(keys::GPUS).cloned() {
        set.insert(keys::GPUS_OLD.to_owned(), gpus);
    }
    if let Some(instance_type) =
        settings.instance_type.as_ref().filter(|_| has(keys::INSTANCE_TYPE_OLD).is_none())
    {
        set.insert(keys::INSTANCE_TYPE_OLD.to_owned(), instance_type.clone());
    }
    Ok(set)
}

fn asks_for_a_vm(spec: &PodSpec, resource: &str) -> bool {
    let mut resources = containers::all(spec).filter_map(|member| member.container.resources.as_ref());
    resources.any(|resources| {
        resources.requests.iter().chain(&resources.limits).any(|amounts| amounts.contains_key(resource))
    })
}

fn unreadable(AnnotationErrors(faults): AnnotationErrors) -> Vec<Fault> {
    let told = |value: Option<String>| value.map_or_else(String::new, |value| format!("{}: ", shown(&value)));
    faults
        .into_iter()
        .map(|fault| {
            Fault::new(
                format!("metadata.annotations[{}]", fault.key),
                format!("{}{}", told(fault.shown), fault.expected),
            )
        })
        .collect()
}

/// What we would write must be what the node service reads.
fn too_large(set: &BTreeMap<String, String>) -> Result<(), Vec<Fault>> {
    let set: HashMap<String, String> = set.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let read = SizeAsked::from_annotations(&set);
    read.map(drop).map_err(|AnnotationErrors(faults)| {
        let told = |value: Option<String>| value.unwrap_or_default();
        faults
            .into_iter()
            .map(|fault| {
                Fault::new(
                    "spec.containers[*].resources",
                    format!(
                        "together the containers ask for {}={}: {}",
                        fault.key,
                        told(fault.shown),
                        fault.expected
                    ),
                )
            })
            .collect()
    })
}
