//! Pods of the runtime classes whose pods get VMs: `AdmissionRequest` and settings in, decision out.
//!
//! Only CREATE is hooked. A pod's resources cannot be changed afterwards (but by `resize`, which a VM cannot follow), so on UPDATE there is
//! nothing to do; and upstream, which hooks it, refuses every update of a pod that is older than its webhook, because the patch touches
//! what is immutable. An UPDATE that arrives all the same passes unchanged.
//!
//! What follows from stripping and is not repaired here: a `ResourceQuota` on cpu or memory sees nothing of these pods and refuses those
//! that ask for nothing of what it counts; count `requests.kata.peerpods.io/vm` instead. A `LimitRange` with a least amount refuses them.
//!
//! No I/O. The server turns the decision into an answer.

mod carry;
mod containers;
mod patch;
mod refusals;
mod seen;
pub mod settings;
pub mod size;
mod volumes;

use json_patch::Patch;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::faults::Fault;
use super::review::{Operation, Request};
pub use seen::Seen;
pub use settings::Settings;

/// Marks what a kubelet shows of a pod of its own. It must stay as the kubelet wrote it.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// As many names as a warning has room for; kubectl shows 256 characters.
const NAMED: usize = 4;

/// What becomes of a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It is none of our business.
    Unchanged,
    /// It gets a VM.
    Patched {
        /// What is changed.
        patch: Patch,
        /// What its user should know.
        warnings: Vec<String>,
    },
    /// It cannot work.
    Refused {
        /// Its runtime class.
        class: String,
        /// Why, field by field; never empty.
        faults: Vec<Fault>,
    },
}

/// Decides about a pod.
#[must_use]
pub fn decide(request: &Request, pod: &Pod, settings: &Settings) -> Decision {
    let Some((class, spec)) = ours(request, pod, settings) else { return Decision::Unchanged };
    let mut faults = refusals::faults(spec);
    let wanted = size::of(spec).unwrap_or_else(|unreadable| {
        faults.extend(unreadable);
        size::Wanted::default()
    });
    let annotations = carry::annotations(pod, spec, wanted, settings).unwrap_or_else(|unusable| {
        faults.extend(unusable);
        Default::default()
    });
    if !faults.is_empty() {
        return Decision::Refused { class: class.to_owned(), faults };
    }
    let operations = patch::operations(pod, spec, &annotations, &settings.resource);
    Decision::Patched { patch: Patch(operations), warnings: warnings(spec, settings) }
}

/// The pod's class and spec, when it is to get a VM.
fn ours<'a>(request: &Request, pod: &'a Pod, settings: &Settings) -> Option<(&'a str, &'a PodSpec)> {
    let spec = pod.spec.as_ref()?;
    let class = spec.runtime_class_name.as_deref().filter(|class| settings.classes.contains(*class))?;
    let created = request.operation == Operation::Create && request.sub_resource.is_none();
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let mirror =
        pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR));
    (created && !mirror && !settings.excluded.contains(namespace)).then_some((class, spec))
}

/// What works otherwise than on a node.
fn warnings(spec: &PodSpec, settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    let copied = volumes::copied(spec);
    if !copied.is_empty() {
        warnings.push(format!(
            "volumes {} are copied into the pod's VM when it starts, unless their driver attaches them to it: what is written to a copy is lost with the pod",
            some(&copied)
        ));
    }
    let dropped: Vec<&str> = patch::dropped(spec, &settings.resource).into_iter().collect();
    if !dropped.is_empty() {
        warnings
            .push(format!("{} of the node do not reach the pod's VM and are not asked for", some(&dropped)));
    }
    warnings
}

fn some(names: &[&str]) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(NAMED)
        .map(|name| super::faults::shown(name).trim_matches('"').to_owned())
        .collect();
    match names.len().checked_sub(NAMED).filter(|more| *more > 0) {
        Some(more) => format!("{} and {more} more", shown.join(", ")),
        None => shown.join(", "),
    }
}

#[cfg(test)]
mod tests;
