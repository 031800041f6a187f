//! The pod's network between its namespace on the worker and the pod VM: observe → plan → apply, at both ends of the VXLAN.
//!
//! The worker end joins the pod's interface and a VXLAN device in the pod's network namespace by redirecting every frame from one to
//! the other. The guest end gives the VM's namespace `podns` an interface with the pod's own name, address, MAC address and routes.
//! This crate owns those devices and rules and nothing else: it never touches the pod's address on the worker, the host's routes or
//! its firewall.

pub mod tunnel;

pub use tunnel::{Tunnel, TunnelError, TunnelSpec};
