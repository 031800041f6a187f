//! The framework of the cross-crate suites: a node service in a process, the shim as a client, and what they leave behind.
//!
//! Suites live in `tests/tests/`, one file each, named by what they are about; each says in its first lines what it needs. A suite of
//! one crate lives with that crate.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

pub mod bench;
pub mod canary;
pub mod conformance;
pub mod crash;
pub mod daemon;
pub mod kill;
pub mod node;
pub mod shim;
pub mod untried;
