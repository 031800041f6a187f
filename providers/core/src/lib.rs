//! The contract between the node service and whoever makes VMs.
//!
//! [`Provider`] is the seam; [`contract`] is the suite every provider is held to; [`fake`] is a whole cloud in a process, scriptable
//! to fail in every way a real one does. Nothing here knows a concrete cloud.

pub mod contract;
pub mod error;
pub mod fake;
pub mod vm;

pub use error::{ErrorKind, ProviderError, Retry};
pub use vm::{Console, Facts, Instance, NODE_TAG, Provider, UserData, VmKey, VmSize, VmSpec, VmState};
