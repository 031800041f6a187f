//! PeerPodConfig: the node service on every node it selects, and how many VMs each node advertises to the scheduler.
//!
//! ```text
//!   observe   the PeerPodConfig, nodes, the Secret and the ConfigMap, as plain data (`world`)
//!   decide    what is to be done (`decide`, with `daemon_set`, `configuration` and `status`; pure)
//!   act       apply, patch nodes' capacity, write the status
//! ```

pub mod act;
pub mod configuration;
pub mod controller;
pub mod daemon_set;
pub mod decide;
mod events;
pub mod observe;
pub mod status;
pub mod world;
