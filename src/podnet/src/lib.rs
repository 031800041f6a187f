//! The pod's network between its namespace on the worker and the pod VM: observe → plan → apply, at both ends of the VXLAN.
//!
//! The worker end ([`VxlanTunnel`]) joins the pod's interface and a VXLAN device in the pod's network namespace by redirecting every
//! frame from one to the other. The guest end ([`GuestTunnel`]) gives the VM's namespace `podns` an interface with the pod's own name,
//! address, MAC address and routes. [`pod_netns`] makes what a CNI plugin makes, for use without one.
//!
//! This crate owns those devices and rules and nothing else: it never touches the pod's address on the worker, the host's routes or
//! others' firewall rules; its own are in one table (`guard`). Everything it knows about the kernel it reads anew at each call; it keeps no state.
//!
//! "This machine's namespace" is always that of the calling thread. No thread of the async runtime ever enters another one: sockets
//! of other namespaces are opened by short-lived threads of their own (`netns`).

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod guard;
pub mod guest;
mod kernel;
mod netns;
mod nft;
mod node;
pub mod pod_netns;
pub mod probe;
pub mod tunnel;
mod vxlan;
mod worker;

pub use guest::GuestTunnel;
pub use node::worker_address;
pub use pod_netns::{PodNetns, PodNetnsSpec};
pub use probe::Probe;
pub use tunnel::{LaidTunnel, Tunnel, TunnelError, TunnelSpec};
pub use worker::{VxlanTunnel, try_out_block};
