//! The controller of `PeerPod`s, the other half of the node service's ledger: VMs whose node no longer deletes them are deleted here.
//!
//! ```text
//!  pod gone ──▶ garbage collector marks its PeerPod ──▶ finalizer: the VM is deleted ──▶ the PeerPod goes
//!  pod has a newer VM ──▶ the older PeerPod is removed ──▶ the same
//!  provider.list ──▶ nobody's VM of a node that is gone ──▶ two passes and a grace period ──▶ deleted
//! ```
//!
//! observe → decide → act as everywhere: [`decide`] and [`sweep::decide`] are pure. Which cloud, and with which credentials, is found
//! out when it is needed ([`clouds`]). Not here: writing `PeerPod`s, which is the node service's, and VMs of nodes that are there,
//! which their own service looks after.

pub mod act;
pub mod clouds;
pub mod controller;
pub mod decide;
pub mod metrics;
pub mod observe;
pub mod sweep;
pub mod world;
