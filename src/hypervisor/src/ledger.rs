//! The seam to the cluster's record of who owns which VM (the PeerPod object). The journal is this node's memory; the ledger is what
//! is left when the node never comes back.

use async_trait::async_trait;
use peerpods_provider::{Instance, VmKey};

/// The cluster-side owner record of VMs. An unreachable API server means retry inside the implementation, never a failed pod, so no
/// method can fail.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// A VM is about to be made for this pod.
    async fn intend(&self, key: &VmKey, pod_namespace: &str, pod_name: &str);
    /// The VM exists under this id.
    async fn assign(&self, key: &VmKey, instance: &Instance);
    /// The VM is gone: deletion was confirmed.
    async fn release(&self, key: &VmKey);
    /// The pod has had this VM since before the service started. Does not wait for anybody.
    async fn recall(&self, key: &VmKey, pod_namespace: &str, pod_name: &str, instance: Option<&str>);
}

/// A node without a cluster: the journal is all there is.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLedger;

#[async_trait]
impl Ledger for NoLedger {
    async fn intend(&self, _: &VmKey, _: &str, _: &str) {}
    async fn assign(&self, _: &VmKey, _: &Instance) {}
    async fn release(&self, _: &VmKey) {}
    async fn recall(&self, _: &VmKey, _: &str, _: &str, _: Option<&str>) {}
}
