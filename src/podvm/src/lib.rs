//! What a pod VM *is*, as plain data and plain functions.
//!
//! Everything here can be decided without asking anybody: names, sizes, what the shim's annotations mean, what the guest is told,
//! which request may be taken in which state. No async, no I/O, no clock: callers observe and act, this crate decides.

pub mod ids;
pub mod network;

pub use ids::{ClusterId, IdError, SandboxId};
