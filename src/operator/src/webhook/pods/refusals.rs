//! Pods that cannot work in a VM of their own: which field, and why.
//!
//! Only what cannot work is refused. Host ports work (the pod's network namespace stays on the node), so do privileged containers (they
//! are privileged in the VM), a fixed node, shared process namespaces and any security context; they pass.

use k8s_openapi::api::core::v1::PodSpec;

use super::volumes;
use crate::webhook::faults::Fault;

/// Every field that cannot work.
pub(super) fn faults(spec: &PodSpec) -> Vec<Fault> {
    let mut faults: Vec<Fault> = HOST
        .iter()
        .filter(|(is_set, ..)| is_set(spec))
        .map(|(_, field, why)| {
            Fault::new(*field, format!("{why}; leave it out, or use another runtime class"))
        })
        .collect();
    for (n, _) in spec.resource_claims.iter().flatten().enumerate() {
        faults.push(Fault::new(
            format!("spec.resourceClaims[{n}]"),
            "devices of the node do not reach the pod's VM; GPUs of the VM are asked for as a resource, as in nvidia.com/gpu: 1",
        ));
    }
    faults.extend(volumes::faults(spec));
    faults
}

type Refused = (fn(&PodSpec) -> bool, &'static str, &'static str);

/// What of the node a pod may share elsewhere.
const HOST: [Refused; 3] = [
    (
        |spec| spec.host_network == Some(true),
        "spec.hostNetwork",
        "the pod runs in a VM of its own, which is not on the node's network",
    ),
    (
        |spec| spec.host_pid == Some(true),
        "spec.hostPID",
        "the pod runs in a VM of its own, where the node's processes are not",
    ),
    (
        |spec| spec.host_ipc == Some(true),
        "spec.hostIPC",
        "the pod runs in a VM of its own, which does not share the node's memory",
    ),
];
