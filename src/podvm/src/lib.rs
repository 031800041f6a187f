//! What a pod VM *is*, as plain data and plain functions.
//!
//! Everything here can be decided without asking anybody: names, sizes, what the shim's annotations mean, what the guest is told,
//! which request may be taken in which state. No async, no I/O, no clock: callers observe and act, this crate decides.

pub mod admission;
pub mod annotations;
pub mod causes;
pub mod guest_config;
pub mod ids;
pub mod image;
pub mod initdata;
pub mod metadata;
pub mod naming;
pub mod network;
pub mod node_files;
pub mod sizing;
pub mod token;
pub mod underlay;
pub mod user_data;

#[cfg(test)]
mod hostile;
mod secret;

pub use ids::{ClusterId, IdError, SandboxId};
