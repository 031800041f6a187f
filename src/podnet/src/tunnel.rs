//! The seam of the worker end.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use peerpods_podvm::network::PodInterface;

/// One pod's tunnel, as the worker lays it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSpec {
    /// VXLAN network identifier; with `port` unique on this worker.
    pub vni: u32,
    /// UDP port at both ends.
    pub port: u16,
    /// The VM's address.
    pub remote: IpAddr,
    /// The pod interface to join, as [`Tunnel::observe`] named it.
    pub pod_interface: String,
}

/// Why the pod's network could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The network namespace does not exist (any more).
    #[error("network namespace {} does not exist", path.display())]
    NoNetns {
        /// The path asked for.
        path: PathBuf,
    },
    /// The namespace has no interface with a default route or address to carry.
    #[error("network namespace {} has no pod interface: {detail}", path.display())]
    NoInterface {
        /// The namespace.
        path: PathBuf,
        /// What was found instead.
        detail: String,
    },
    /// The pod interface has no address, or more than one.
    #[error("interface {interface} in {} has {count} IPv4 addresses; exactly one is needed", path.display())]
    Addresses {
        /// The namespace.
        path: PathBuf,
        /// The interface.
        interface: String,
        /// How many there are.
        count: usize,
    },
    /// The VNI and port are taken by another pod's device.
    #[error("VNI {vni} on port {port} is in use by another tunnel of this node")]
    VniInUse {
        /// The VNI.
        vni: u32,
        /// The port.
        port: u16,
    },
    /// The pod or the node needs something that no tunnel of ours carries, IPv6 above all.
    #[error("not supported: {what}")]
    Unsupported {
        /// What it is, and of which pod or interface.
        what: String,
    },
    /// The node has no address that a VM could reach.
    #[error("this node has no usable IPv4 address: {detail}")]
    NoNodeAddress {
        /// What was looked for, and where.
        detail: String,
    },
    /// This machine has no route to the other end of the tunnel.
    #[error("no route to the tunnel's other end {address}")]
    Unreachable {
        /// The other end.
        address: IpAddr,
    },
    /// The text cannot name a network namespace.
    #[error("{name:?} is no name for a network namespace (1 to 64 of letters, digits, '_', '.', '-')")]
    BadName {
        /// The text.
        name: String,
    },
    /// A netlink or namespace operation failed.
    #[error("cannot {step}")]
    Kernel {
        /// What was being done, and on what.
        step: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// The worker end of pods' tunnels. `setup` and `teardown` are apply(plan(observe())): idempotent, and complete whatever was there.
/// Each may be dropped at any await: what it had done stays, and the next `setup` or `teardown` takes it from there. Calls for one
/// namespace must not run at the same time; those for different ones may.
#[async_trait]
pub trait Tunnel: Send + Sync {
    /// Reads the pod's network in `netns`. Changes nothing; answers the same before and after `setup`.
    ///
    /// # Errors
    /// When the namespace is gone or holds nothing that can be carried.
    async fn observe(&self, netns: &Path) -> Result<PodInterface, TunnelError>;

    /// Lays the tunnel, or mends what is missing or different of it.
    ///
    /// # Errors
    /// Names the step that failed; `teardown` removes what was done.
    async fn setup(&self, netns: &Path, spec: &TunnelSpec) -> Result<(), TunnelError>;

    /// Removes the tunnel. Ok when there is none, and when the namespace is gone.
    ///
    /// # Errors
    /// When something may be left.
    async fn teardown(&self, netns: &Path, spec: &TunnelSpec) -> Result<(), TunnelError>;

    /// Removes what tunnels left on the worker whose pod's namespace is gone, as after a record was lost. Nothing that a tunnel needs
    /// whose namespace is there. Nothing to do where tunnels leave nothing outside it.
    ///
    /// # Errors
    /// When something may be left.
    async fn collect(&self) -> Result<(), TunnelError> {
        Ok(())
    }
}
