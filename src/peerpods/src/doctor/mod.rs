//! Everything that can be wrong on a node, found before the first pod: *observe* ([`observe`]), *decide* ([`checks`], pure).
//! It changes nothing that stays: what it tries out, it does in a network namespace of its own or removes at once.

#[cfg(feature = "aws")]
pub mod aws;
pub mod checks;
pub mod guard;
pub mod netlink;
pub mod observe;
mod placement;

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use peerpods_agentlink::process::placement::{Choice, Wanted};
use peerpods_provider_qemu::Accel;
use serde::Serialize;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but not as well as it could.
    Warning,
    /// Pods will not start.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub check: &'static str,
    /// How grave.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do about it; nothing when it is ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// What was observed. Every field is an answer to one question; nothing in here is judged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What was found of the cloud, which its provider judges. `None`: VMs are made on this host, and what is said below of QEMU counts.
    pub cloud: Option<Vec<Finding>>,
    /// Effective user id.
    pub euid: u32,
    /// Whether a network namespace and a VXLAN device in it can be made and removed; why not.
    pub netlink: Result<(), String>,
    /// How tunnels are guarded by nftables; what the kernel lacks for it.
    pub guard: Result<guard::Guard, String>,
    /// Whether pods can be kept from what is not theirs; why not.
    pub block: Result<(), String>,
    /// Whether `/dev/net/tun` can be opened; why not.
    pub tun: Result<(), String>,
    /// Whether `/dev/kvm` can be opened; why not.
    pub kvm: Result<(), String>,
    /// The processor's virtualisation flag: `vmx` or `svm`.
    pub virtualisation: Option<&'static str>,
    /// The configured accelerator.
    pub accel: Accel,
    /// QEMU's path and the first line of its version; why not.
    pub qemu: Result<(PathBuf, String), String>,
    /// What the image is; what is wrong with it.
    pub image: Result<String, String>,
    /// Where the image is.
    pub image_dir: PathBuf,
    /// The shim's socket.
    pub socket: PathBuf,
    /// Who is on it.
    pub socket_state: SocketState,
    /// Sandboxes of VMs nobody owns, as the service knows; `None` when there is no service, or it does not say.
    pub orphans: Option<Vec<String>>,
    /// Where health is to be served, and whether it could be; why not. `None`: nowhere.
    pub health: Option<(SocketAddr, Result<(), String>)>,
    /// Directories that must be written to.
    pub directories: Vec<Directory>,
    /// The link program's path; where it was looked for.
    pub link_program: Result<PathBuf, String>,
    /// What is wanted of where links run, and where they will; why they will not.
    pub link_placement: (Wanted, Result<Choice, String>),
    /// The VMs' subnet and bridge.
    pub subnet: (Ipv4Net, String),
    /// The host's routes: interface and subnet.
    pub routes: Result<Vec<(String, Ipv4Net)>, String>,
}

/// Who is on the shim's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketState {
    /// There is no such file.
    Free,
    /// A service answered with its version.
    Live(String),
    /// A socket file on which nobody listens.
    Stale,
    /// Something that is no socket, or does not answer.
    Blocked(String),
}

/// A directory, or its nearest parent that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// What it is for.
    pub purpose: &'static str,
    /// Where it is, or will be.
    pub path: PathBuf,
    /// Bytes free there; why it cannot be written to.
    pub free: Result<u64, String>,
    /// Bytes that should be free.
    pub wanted: u64,
}
