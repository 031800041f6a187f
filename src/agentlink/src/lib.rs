//! The byte path between the shim and the kata-agent in the pod VM.
//!
//! The *near* end is a small process per sandbox (`peerpods-link`) that owns the shim's connections, so that the node daemon may die
//! without the shim noticing. The *far* end runs in `peerpods-guest`: it ends TLS, and forwards ttrpc frames to the agent's socket,
//! rewriting two requests on the way. Neither end has a list of RPCs: one nobody here has heard of passes through.
//!
//! ```text
//!            worker                                      VM
//!  shim ──unix──▶ near (peerpods-link) ══TLS 15150══▶ far (peerpods-guest) ──unix──▶ kata-agent
//!                   ▲ link.sock                          frames read, two requests rewritten
//!                 daemon ([`process`], [`ca`])
//! ```
//!
//! Between our own two ends the bytes go in a resumable session (`session.rs`), which outlives its TCP connection; with a stock peer, plainly.
//!
//! A guest of ours makes its key itself and is admitted by a one-time token ([`admission`]); a stock guest gets a certificate in user data.
//!
//! The near end copies bytes and holds one client certificate; only the daemon holds the authority ([`ca`]).

pub mod admission;
mod ahead;
pub mod ca;
mod control;
mod dial;
pub mod far;
pub mod frame;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod health;
pub mod link;
mod living;
pub mod near;
pub mod process;
mod relay;
pub mod rewrite;
mod session;
pub mod tls;

pub use link::{
    Connected, GuestTrust, Link, LinkError, LinkIdentity, LinkSpec, LinkTarget, Opened, ShimProcess, Shims,
};
