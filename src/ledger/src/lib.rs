//! The cluster's record of who owns which VM, as the node service writes it: a `PeerPod` for every VM, before it is made and until it is
//! gone. What comes of it when the node does not come back is the operator's business.
//!
//! ```text
//!  intend ──▶ PeerPod with our finalizer, owned by its pod ──▶ assign: the VM's id ──▶ release: gone with its VM
//! ```
//!
//! `decide` is pure; `write` does the I/O of one look; [`PeerPodLedger`] keeps at it. An API server that is away delays a
//! pod by [`PATIENCE`] at most: what could not be written is written later, and a VM whose node is lost meanwhile is found by its tags.

mod decide;
mod desk;
mod write;

pub use decide::{Pod, Wanted};
pub use desk::{PATIENCE, PeerPodLedger, Place};
