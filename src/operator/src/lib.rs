//! The controllers of KataConfig, PeerPodConfig and PeerPod, and the webhooks: observe → decide → act, the decisions pure.

pub mod cluster;
pub mod deploy;
pub mod kataconfig;
pub mod lease;
pub mod names;
pub mod objects;
pub mod peerpod;
pub mod peerpodconfig;
pub mod quantity;
pub mod reconciled;
pub mod settings;
pub mod stuck;
#[cfg(test)]
mod upstreams_bugs;
pub mod watching;
pub mod webhook;
