//! The seam: what the node service asks of a provider, and what it gets back.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use peerpods_podvm::image::GuestAdmission;
use peerpods_podvm::{ClusterId, SandboxId};
use serde::{Deserialize, Serialize};

use crate::ProviderError;

/// The idempotency key of a VM: one sandbox of one cluster has at most one VM at a time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VmKey {
    /// The owner.
    pub cluster: ClusterId,
    /// The sandbox.
    pub sandbox: SandboxId,
}

impl fmt::Display for VmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.sandbox)
    }
}

/// What the VM is told at birth (a cloud-config document). Holds the guest's TLS key in the stock form, so it prints nothing.
#[derive(Clone)]
pub struct UserData(Vec<u8>);

impl UserData {
    /// Wraps a rendered document.
    #[must_use]
    pub fn new(document: impl Into<Vec<u8>>) -> Self {
        Self(document.into())
    }

    /// The document's bytes, for handing to the provider only.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for UserData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserData({} bytes)", self.0.len())
    }
}

/// How large a VM is to be. Zero means "the provider's default".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VmSize {
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// GPUs.
    pub gpus: u32,
}

/// What to make.
#[derive(Debug, Clone)]
pub struct VmSpec {
    /// The VM's name, `podvm-<pod>-<sid8>`; also the name in its TLS certificate.
    pub name: String,
    /// The image asked for by annotation; `None` means the provider's configured one.
    pub image: Option<String>,
    /// The machine type asked for by annotation.
    pub machine_type: Option<String>,
    /// How large.
    pub size: VmSize,
    /// What the guest is told.
    pub user_data: UserData,
    /// Tags for every object made; the provider adds cluster and sandbox id itself.
    pub tags: BTreeMap<String, String>,
}

/// Where a VM is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VmState {
    /// Asked for, not running yet.
    Pending,
    /// Running, which says nothing about the agent inside.
    Running,
    /// It ran and no longer does; it will not come back by itself.
    Stopped,
}

/// Where the VM's console output can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Console {
    /// A file on this host that grows while the VM runs.
    File(PathBuf),
}

/// A VM that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The provider's own id.
    pub id: String,
    /// The name it was made with.
    pub name: String,
    /// Addresses the worker can reach it at, the tunnel's first. May be empty while [`VmState::Pending`].
    pub addresses: Vec<IpAddr>,
    /// Where it is in its life.
    pub state: VmState,
    /// Its console, if the provider keeps one that is cheap to read.
    pub console: Option<Console>,
    /// The tags it was made with, those of [`VmSpec::tags`] at least.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// The tag with the node that made the VM: the orphan sweep touches no VM of another node.
pub const NODE_TAG: &str = "node";

/// What the service must know of a provider before the first VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Largest user data in bytes, before any encoding the provider does itself.
    pub user_data_limit: usize,
    /// The worker's address as VMs see it, when the provider decides it (QEMU: the bridge's). `None`: the node's primary address.
    pub worker_address: Option<IpNet>,
    /// MTU of the path between worker and VM in bytes.
    pub underlay_mtu: u32,
    /// Anything worth a log line at start, such as why KVM is not used.
    pub remarks: Vec<String>,
}

/// Someone who makes VMs.
///
/// Every method may be dropped at any await; what it had made by then is found again by [`Provider::get`] or
/// [`Provider::list`]. All methods may be called concurrently, also for one key.
#[async_trait]
pub trait Provider: Send + Sync {
    /// The name in configuration, logs and metrics: `qemu`, `aws`, …
    fn name(&self) -> &'static str;

    /// Where its VMs are, when the same key means another VM, or none, elsewhere: the region that is configured. `None` where there is one
    /// place only, and while it is not known.
    async fn location(&self) -> Option<String> {
        None
    }

    /// How long a VM that was asked for may be missing from [`Provider::get`], [`Provider::list`] and the eyes of
    /// [`Provider::delete`]: clouds show what they made only some time later. Counts from the end of [`Provider::create`], by its answer
    /// or by being dropped: how long a call waits before the cloud hears of it is the provider's own affair. Zero where what was asked
    /// for is seen at once.
    fn visible_within(&self) -> Duration {
        Duration::ZERO
    }

    /// Checks configuration, credentials and reachability without making anything.
    ///
    /// # Errors
    /// Names what is missing and what to do about it.
    async fn verify(&self) -> Result<Facts, ProviderError>;

    /// What is known of the guest daemon in an image; `None` is the configured one. What is not known is told so: a guest that is
    /// wrongly taken for one that can be admitted by a token never comes up.
    async fn guest_admission(&self, image: Option<&str>) -> GuestAdmission {
        let _ = image;
        GuestAdmission::Unknown
    }

    /// Makes the VM of `key`, or answers the one that is there already. Returns as soon as the VM is on its way: it may be
    /// [`VmState::Pending`] and have no address yet.
    ///
    /// # Errors
    /// By kind; after an error nothing billable is left that `delete` would not remove.
    async fn create(&self, key: &VmKey, spec: &VmSpec) -> Result<Instance, ProviderError>;

    /// The VM of `key`, if there is one. A VM that stopped by itself is still there.
    ///
    /// # Errors
    /// Only when the provider could not be asked; absence is `Ok(None)`.
    async fn get(&self, key: &VmKey) -> Result<Option<Instance>, ProviderError>;

    /// Every VM of a cluster that this provider tagged, whoever made it.
    ///
    /// # Errors
    /// When the provider could not be asked for all of it; half a list is an error, never an answer.
    async fn list(&self, cluster: &ClusterId) -> Result<Vec<(VmKey, Instance)>, ProviderError>;

    /// Why the VM of `key`, which was seen to have ended or to be gone, is: part of a sentence for people, such as `EC2 took the spot
    /// instance back`. Asked when an end is seen. `None` where it is not known or could not be asked.
    async fn why_gone(&self, key: &VmKey) -> Option<String> {
        let _ = key;
        None
    }

    /// Removes the VM of `key` and all its side objects; returns when the provider confirmed. Nothing to remove is `Ok`.
    ///
    /// # Errors
    /// When something may still exist; calling again continues.
    async fn delete(&self, key: &VmKey) -> Result<(), ProviderError>;
}
