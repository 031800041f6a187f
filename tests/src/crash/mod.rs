//! The fault harness: the real node service in a simulated world, killed at every step it takes, and invariants it has to keep.
//!
//! ```text
//!  kubelets and shims ──▶ Service ──▶ seams ──▶ cloud, kernel, link processes, disk, ledger: all outlive the daemon
//!         (shim)          (real)     (world)     (cloud)  (kernel)   (link)     (journal)
//! ```
//!
//! Time is virtual and everything follows from the [seed](plan::Seed), so a violation is replayed by its seed. A *point* is a step in a
//! call of a seam; killing the daemon there leaves everything before the step done and everything after it undone.

pub mod cloud;
pub mod invariants;
pub mod journal;
pub mod kernel;
mod ledger;
pub mod link;
pub mod node;
pub mod plan;
pub mod pod;
pub mod process;
pub mod report;
pub mod rng;
pub mod run;
pub mod shim;
pub mod world;
