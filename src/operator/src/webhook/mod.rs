//! The webhooks: what the API server asks before a pod, a `KataConfig` or a `PeerPodConfig` is stored.
//!
//! ```text
//! API server ─HTTPS─▶ server ─▶ review (wire) ─▶ pods / kataconfigs / peerpodconfigs (pure) ─▶ review ─▶ API server
//!                       ▲
//!                 certificates: made, kept in a Secret and rotated here unless somebody else does it
//! configuration: the objects that make the API server ask, and that run what answers (pure)
//! ```
//!
//! It never changes anything but its own certificate's Secret and the `caBundle` of the configurations that name it: what is admitted is
//! said in the answer. It holds no cloud client.

pub mod certificates;
pub mod configuration;
pub mod faults;
pub mod kataconfigs;
pub mod names;
pub mod peerpodconfigs;
pub mod pods;
pub mod review;
pub mod role;
pub mod server;
pub mod stored;
