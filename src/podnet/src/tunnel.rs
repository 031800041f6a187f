//! The seam of the worker end.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use peerpods_podvm::network::ObservedPod;

use crate::probe::Probe;

/// The tunnel of one interface of a pod, as the worker lays it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSpec {
    /// VXLAN network identifier; with `port` unique on this worker.
    pub vni: u32,
    /// UDP port at both ends.
    pub port: u16,
    /// The source address of the tunnel's packets, the one the guest knows this worker by: it takes them from no other. `None` leaves it
    /// to the routes, as older programs did.
    pub local: Option<IpAddr>,
    /// The VM's address.
    pub remote: IpAddr,
    /// The pod interface to join, as [`Tunnel::observe`] named it.
    pub pod_interface: String,
    /// 0 for the pod's primary interface, and so on: which of our devices in the pod's namespace it is.
    pub ordinal: usize,
}

/// A tunnel that is laid, or about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaidTunnel {
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// The tunnel.
    pub spec: TunnelSpec,
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
    /// The pod interface has no address.
    #[error("interface {interface} in {} has no address", path.display())]
    NoAddress {
        /// The namespace.
        path: PathBuf,
        /// The interface.
        interface: String,
    },
    /// The namespace is this node's own.
    #[error(
        "{} is the node's own network namespace: a pod with hostNetwork cannot run in a VM of its own; remove hostNetwork from the pod, or \
         use another runtime class",
        path.display()
    )]
    HostNetwork {
        /// The path asked for.
        path: PathBuf,
    },
    /// The network between the node and the VM carries less than the pod was promised.
    #[error("{0}")]
    PathMtu(crate::probe::TooSmall),
    /// Nothing comes through the tunnel.
    #[error(
        "the tunnel from {local} to the VM at {remote} carries nothing, although the VM's agent answers: open UDP port {port} both ways \
         between the nodes and the VMs (security group or firewall), and see that {local} is the address by which VMs reach this node"
    )]
    Silent {
        /// This node's end.
        local: IpAddr,
        /// The VM.
        remote: IpAddr,
        /// The tunnel's port.
        port: u16,
    },
    /// The VNI and port are taken by another pod's device.
    #[error("VNI {vni} on port {port} is in use by another tunnel of this node")]
    VniInUse {
        /// The VNI.
        vni: u32,
        /// The port.
        port: u16,
    },
    /// Other programs changed the node's firewall so often that a change of ours found no moment. Worth another try.
    #[error("cannot {step}: other programs change nftables all the time")]
    Overtaken {
        /// What was being done.
        step: String,
    },
    /// The pod or the node needs something that no tunnel of ours carries.
    #[error("not supported: {what}")]
    Unsupported {
        /// What it is, and of which pod or interface.
        what: String,
    },
    /// The node has no address that a VM could reach.
    #[error("this node has no usable address: {detail}")]
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
    async fn observe(&self, netns: &Path) -> Result<ObservedPod, TunnelError>;

    /// The largest packet that leaves this node by the interface that has the address `worker`, in bytes; `None` when none has it.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    async fn underlay_mtu(&self, worker: IpAddr) -> Result<Option<u32>, TunnelError>;

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

    /// Sends full packets through a tunnel that is laid, and returns when they came through both ways, which is as soon as the guest has
    /// laid its end. `guest_up` is answered when it must have: what has not come through some time later does not. May be dropped at any
    /// await.
    ///
    /// # Errors
    /// [`TunnelError::PathMtu`] and [`TunnelError::Silent`]. Where the probe itself cannot be sent, nothing is known: Ok, and a warning.
    async fn verify(&self, netns: &Path, spec: &TunnelSpec, probe: Probe) -> Result<(), TunnelError>;

    /// Puts back what keeps others out of the tunnels that are laid, should somebody on this node have removed it. To be called every
    /// minute; cheap when nothing is missing, however many there are. `laid` is asked when no other call changes anything: it must not
    /// name a tunnel that is being torn down. Nothing to do where tunnels need nothing outside their namespaces.
    ///
    /// # Errors
    /// When something may be missing.
    async fn keep(&self, laid: &(dyn Fn() -> Vec<LaidTunnel> + Sync)) -> Result<(), TunnelError> {
        let _unasked = laid;
        Ok(())
    }

    /// Removes what tunnels left on the worker whose pod's namespace is gone, as after a record was lost. Nothing that a tunnel needs
    /// whose namespace is there. Nothing to do where tunnels leave nothing outside it.
    ///
    /// # Errors
    /// When something may be left.
    async fn collect(&self) -> Result<(), TunnelError> {
        Ok(())
    }
}
