//! The seam to the cluster's record of who owns which VM (the PeerPod object). The journal is this node's memory; the ledger is what
//! is left when the node never comes back.

use async_trait::async_trait;
use peerpods_provider::{Instance, VmKey};

/// A pod that has a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The pod's namespace.
    pub pod_namespace: &'a str,
    /// Its name.
    pub pod_name: &'a str,
    /// Where its VM is, as the provider calls it.
    pub location: Option<&'a str>,
    /// When its sandbox was asked for, in milliseconds since 1970: a pod's next sandbox has a later one.
    pub since_unix_ms: u64,
}

/// The cluster-side owner record of VMs. An unreachable API server means retry inside the implementation, never a failed pod, so no
/// method can fail.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// A VM is about to be made for this pod.
    async fn intend(&self, key: &VmKey, claim: Claim<'_>);
    /// The VM exists under this id.
    async fn assign(&self, key: &VmKey, instance: &Instance);
    /// The VM is gone: deletion was confirmed.
    async fn release(&self, key: &VmKey);
    /// The pod has had this VM since before the service started. Does not wait for anybody.
    async fn recall(&self, key: &VmKey, claim: Claim<'_>, instance: Option<&str>);
}

/// A node without a cluster: the journal is all there is.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLedger;

#[async_trait]
impl Ledger for NoLedger {
    async fn intend(&self, _: &VmKey, _: Claim<'_>) {}
    async fn assign(&self, _: &VmKey, _: &Instance) {}
    async fn release(&self, _: &VmKey) {}
    async fn recall(&self, _: &VmKey, _: Claim<'_>, _: Option<&str>) {}
}
