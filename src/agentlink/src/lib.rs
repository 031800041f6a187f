//! The byte path between the shim and the kata-agent in the pod VM.
//!
//! The *near* end is a small process per sandbox (`peerpods-link`) that owns the shim's connections, so that the node daemon may die
//! without the shim noticing. The *far* end runs in `peerpods-guest`: it ends TLS, and forwards ttrpc frames to the agent's socket,
//! rewriting two requests on the way. Neither end has a list of RPCs: one nobody here has heard of passes through.

pub mod link;

pub use link::{Connected, Link, LinkError, LinkIdentity, LinkSpec, LinkTarget};
