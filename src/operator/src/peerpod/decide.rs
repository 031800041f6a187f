//! What is to be done about a PeerPod. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use peerpods_crds::{PEERPOD_FINALIZER, PeerPod};
use peerpods_podvm::{ClusterId, SandboxId};
use peerpods_provider::VmKey;

use super::world::{Age, Node, Pace, Sibling, World};

/// The annotation with which a person says that the VM need not be deleted: it was by hand, or its cloud account is no more.
pub const FORGET: &str = "peerpods.io/forget-vm";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Now.
    pub step: Step,
    /// When to look again, if nothing changes before.
    pub again: Option<Duration>,
}

/// The one thing to be done about a PeerPod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Wait,
    /// Our finalizer is put, so that the VM is deleted before its PeerPod.
    Guard,
    /// The pod's older PeerPods are deleted: this is its newer VM.
    Retire(Vec<Sibling>),
    /// It is told that only its node deletes the VM.
    LeaveToItsNode,
    /// The VM is deleted, then our finalizer taken away.
    Collect(Vm),
    /// Our finalizer is taken away, there is nothing to delete.
    Release(NoVm),
}

/// Which VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vm {
    /// One of ours.
    Key(VmKey),
    /// One that only its cloud's id is known of: upstream's PeerPods say no more.
    Id(String),
}

/// Why there is nothing to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoVm {
    /// None was ever asked for.
    NeverMade,
    /// A person said so, by [`FORGET`].
    Forgotten,
}

/// Decides.
#[must_use]
pub fn decide(world: &World, pace: &Pace, now: Timestamp) -> Plan {
    let peer_pod = &world.peer_pod;
    let guarded = peer_pod.finalizers().iter().any(|one| one == PEERPOD_FINALIZER);
    match &peer_pod.metadata.deletion_timestamp {
        Some(_) if !guarded => at_rest(),
        Some(since) => leaving(world, pace, now.duration_since(since.0)),
        None if !guarded => now_do(Step::Guard),
        None => staying(world, pace, now),
    }
}

fn at_rest() -> Plan {
    Plan { step: Step::Wait, again: None }
}

fn now_do(step: Step) -> Plan {
    Plan { step, again: None }
}

/// The pod is gone, or has another VM: this one goes.
fn leaving(world: &World, pace: &Pace, since: SignedDuration) -> Plan {
    let peer_pod = &world.peer_pod;
    if peer_pod.annotations().get(FORGET).is_some_and(|value| value == "true") {
        return now_do(Step::Release(NoVm::Forgotten));
    }
    let Some(vm) = vm(peer_pod) else { return now_do(Step::Release(NoVm::NeverMade)) };
    // The end of a namespace, or a person, may delete it before its pod: the pod's VM is the pod's until its own end.
    let replaced = world.siblings.iter().any(|other| Age::of(peer_pod).is_before(&other.age));
    // A pod that is a file of its node has no end that the cluster is told of, and it is its own service that hears of it.
    let of_its_node = peer_pod.owner_references().iter().any(|owner| owner.kind == "Node");
    let left = pace.nodes_turn.saturating_sub(since.try_into().unwrap_or_default());
    if of_its_node && world.node != Node::Gone {
        let step = if left.is_zero() { Step::LeaveToItsNode } else { Step::Wait };
        return Plan { step, again: Some(pace.nodes_turn) };
    }
    if world.pod_is_there && !replaced && world.node != Node::Gone {
        return Plan { step: Step::Wait, again: Some(pace.nodes_turn) };
    }
    if world.node == Node::Ready && !left.is_zero() {
        return Plan { step: Step::Wait, again: Some(left) };
    }
    now_do(Step::Collect(vm))
}

/// The VM of a PeerPod.
#[must_use]
pub fn vm(peer_pod: &PeerPod) -> Option<Vm> {
    let spec = &peer_pod.spec;
    let of = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let key = of(&spec.cluster_id).zip(of(&spec.sandbox_id)).and_then(|(cluster, sandbox)| {
        Some(VmKey {
            cluster: cluster.parse::<ClusterId>().ok()?,
            sandbox: sandbox.parse::<SandboxId>().ok()?,
        })
    });
    match key {
        Some(key) => Some(Vm::Key(key)),
        None => Some(spec.instance_id.clone()).filter(|id| !id.is_empty()).map(Vm::Id),
    }
}

/// The pod is there. kubelet makes a pod's next sandbox only when it has ended the one before: an older VM of the same pod is on its way
/// out, or was forgotten by a node that lost its journal.
fn staying(world: &World, pace: &Pace, now: Timestamp) -> Plan {
    let peer_pod = &world.peer_pod;
    let own = Age::of(peer_pod);
    let Some(written) = own.written else { return at_rest() };
    let is_older = |other: &&Sibling| {
        other.sandbox != peer_pod.spec.sandbox_id && other.age.is_before(&own) && !other.is_going
    };
    let older: Vec<Sibling> = world.siblings.iter().filter(is_older).cloned().collect();
    let left = pace.nodes_turn.saturating_sub(now.duration_since(written).try_into().unwrap_or_default());
    match (older.is_empty(), left.is_zero()) {
        (true, _) => at_rest(),
        (false, true) => now_do(Step::Retire(older)),
        (false, false) => Plan { step: Step::Wait, again: Some(left) },
    }
}

#[cfg(test)]
mod tests;
