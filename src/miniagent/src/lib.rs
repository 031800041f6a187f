//! Just enough of the kata-agent's API to run containers in a pod VM, for the demo and for tests without a kata-agent.
//!
//! Two programs in one: the *agent*, which serves ttrpc and owns the containers, and the *child* ([`child`]), which the agent
//! starts anew for every process of a container. Namespaces and mounts are made only in the child, because it has one thread.
//! The two speak over a socket pair ([`control`]); what the child shall do is a [`plan`], computed without I/O ([`convert`]).
//!
//! ```text
//! agent ──plan──▶ child (joins or leaves the process namespace, forks, waits; its exit code is the process's)
//!   ▲               └─▶ the container's process: other namespaces, mounts, user; says Ready; starts the program when told
//!   └───Forked, Ready or Failed───┘
//! ```
//!
//! It does not pull images, hot-plug, filter system calls, or touch networks: interfaces come with the namespace a container
//! is told to join. Calls it does not know answer UNIMPLEMENTED.

pub mod cgroup;
pub mod child;
pub mod config;
pub mod container;
pub mod control;
pub mod convert;
pub mod copy_file;
pub mod error;
pub mod guest;
pub mod image;
pub mod metrics;
pub mod mount_options;
pub mod namespaces;
pub mod plan;
pub mod process;
pub mod rpc;
pub mod sandbox;
pub mod server;
pub mod stats;
pub mod stdio;
pub mod storage;
