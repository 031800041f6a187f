//! The unified program: command line, configuration, roles, and the commands around them.
//!
//! What it owns: the one door of configuration ([`config`]), the choice of provider ([`roles`]), the client that acts as the shim
//! ([`sandbox`]), that for VMs nobody owns ([`gc`]), what is placed on a node's host ([`installer`]) and the checks before the first pod ([`doctor`]). What a role does is its own crate's business.

pub mod cli;
mod commands;
pub mod config;
pub mod doctor;
pub mod exit;
pub mod gc;
pub mod health;
pub mod installer;
pub mod logging;
pub mod output;
#[cfg(feature = "aws")]
pub mod ports;
pub mod programs;
pub mod roles;
pub mod sandbox;

pub use commands::run;
