//! A whole cloud in a process, for tests and for trying the service out.
//!
//! [`FakeCloud`] is the far side: it holds the VMs, lives as long as its `Arc`, and so survives a service that dies and comes back.
//! [`FakeProvider`] is a client of it. A script makes any call fail, hang, lose its answer or give birth to a bad VM; counters and
//! [`FakeCloud::leftovers`] say what happened. What stands behind a VM is a [`Launcher`]'s affair: [`Bare`] has an address and
//! nothing else, [`NetnsVm`] runs the real guest program in a network namespace. [`CloudServer`] and [`CloudClient`] put the two sides into
//! processes of their own, so that a service can be killed while its cloud lives on. No cloud is imitated in its details here.

mod client;
mod cloud;
mod launcher;
mod machine;
mod netns;
mod provider;
mod script;
mod server;
mod shell;
mod wire;

pub use client::CloudClient;
pub use cloud::FakeCloud;
pub use launcher::{Bare, FakeVm, Launch, Launcher};
pub use machine::Made;
pub use netns::{NetnsOptions, NetnsVm};
pub use provider::FakeProvider;
pub use script::{Calls, Fault, Operation};
pub use server::CloudServer;
