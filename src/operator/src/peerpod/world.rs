//! What a decision about a PeerPod is made from, as plain data.

use std::time::Duration;

use jiff::Timestamp;
use peerpods_crds::PeerPod;

/// How long others are waited for before a VM is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// For how long a node that works may delete a VM by itself before we do, and a pod's older VM be there beside its newer one.
    pub nodes_turn: Duration,
    /// Between two looks at all VMs.
    pub sweep_every: Duration,
    /// How long a VM must have been seen without an owner.
    pub sweep_grace: Duration,
}

impl Default for Pace {
    /// Within five minutes of the pod's end every VM is gone, whatever became of its node.
    fn default() -> Self {
        Self {
            nodes_turn: Duration::from_secs(60),
            sweep_every: Duration::from_secs(60),
            sweep_grace: Duration::from_secs(100),
        }
    }
}

/// A cluster as far as a PeerPod is concerned.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The PeerPod.
    pub peer_pod: PeerPod,
    /// Its node.
    pub node: Node,
    /// Whether the pod it belongs to is still there.
    pub pod_is_there: bool,
    /// The other PeerPods of the same pod.
    pub siblings: Vec<Sibling>,
}

/// The node that is to delete the VM by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Node {
    /// It is there and works.
    Ready,
    /// It is there and does not work, or nobody knows.
    #[default]
    NotReady,
    /// It is not part of the cluster.
    Gone,
}

/// Another PeerPod of the same pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: Option<String>,
    /// The sandbox its VM is for.
    pub sandbox: Option<String>,
    /// Since when it is there.
    pub age: Age,
    /// Whether it is being deleted already.
    pub is_going: bool,
}

/// Since when there is a PeerPod, and the sandbox it is of, as two clocks say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Age {
    /// When it was written, by the API server's clock. That may be long after the VM was made, after the pod's next one even.
    pub written: Option<Timestamp>,
    /// When its node was asked for the sandbox, by the node's clock, which may have been set back since. Others' PeerPods do not say.
    pub asked: Option<Timestamp>,
}

impl Age {
    /// Of this one.
    #[must_use]
    pub fn of(peer_pod: &PeerPod) -> Self {
        Self {
            written: peer_pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
            asked: peer_pod.spec.sandbox_created.as_ref().map(|time| time.0),
        }
    }

    /// Whether its VM came before another one of the same pod. Where the clocks do not agree neither did: a VM in use must not be
    /// taken for the older one.
    #[must_use]
    pub fn is_before(&self, other: &Self) -> bool {
        let Some((own, others)) = self.written.zip(other.written) else { return false };
        match self.asked.zip(other.asked) {
            // API servers write whole seconds.
            Some((asked, others_asked)) => asked < others_asked && own <= others,
            None => own < others,
        }
    }
}
