//! The daemon inside the pod VM, `peerpods-guest`.
//!
//! ```text
//! PID 1 only: init    root, mounts, modules, the VM's own network; starts ourselves as a service, reaps, powers off
//! user_data           where the worker's message is          (observe)
//! provision           which files it becomes, and initdata's (decide, act)
//! service             15150, the pod's namespace and tunnel, the agent
//! agent               the kata-agent, or miniagent, as a child in the VM's own namespaces
//! ```
//!
//! Owns the files of its run directory, the pod's network namespace and tunnel in the VM, and one agent process. The agent's life is
//! the pod's: an agent that ends is never started again, its links close so that the shim sees it, and the VM stays up for whoever
//! wants to read its console. Deleting the VM is the worker's business.
//!
//! Works the same under systemd on a distribution's image (`dist/peerpods-guest.service`), where cloud-init or stock's
//! `process-user-data` may have written the files already, and in a network namespace for tests.

pub mod agent;
pub mod args;
pub mod init;
pub mod provision;
pub mod service;
pub mod uptime;
pub mod user_data;

pub use args::Args;
