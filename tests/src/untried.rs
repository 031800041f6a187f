//! Tunnels that are laid and not tried: for VMs that are an open port and nothing else, which could not answer.

use std::net::IpAddr;
use std::path::Path;

use async_trait::async_trait;
use peerpods_podnet::{LaidTunnel, Probe, Tunnel, TunnelError, TunnelSpec, VxlanTunnel};
use peerpods_podvm::network::ObservedPod;

/// The argument with which `peerpods-test-node` takes tunnels on trust.
pub const UNTRIED_TUNNELS: &str = "untried-tunnels";

/// The kernel's tunnels, whose path is taken on trust.
#[derive(Debug, Default)]
pub struct UntriedTunnel(VxlanTunnel);

#[async_trait]
impl Tunnel for UntriedTunnel {
    async fn observe(&self, netns: &Path) -> Result<ObservedPod, TunnelError> {
        self.0.observe(netns).await
    }

    async fn underlay_mtu(&self, worker: IpAddr) -> Result<Option<u32>, TunnelError> {
        self.0.underlay_mtu(worker).await
    }

    async fn setup(&self, netns: &Path, spec: &TunnelSpec) -> Result<(), TunnelError> {
        self.0.setup(netns, spec).await
    }

    async fn teardown(&self, netns: &Path, spec: &TunnelSpec) -> Result<(), TunnelError> {
        self.0.teardown(netns, spec).await
    }

    async fn verify(&self, _: &Path, _: &TunnelSpec, _: Probe) -> Result<(), TunnelError> {
        Ok(())
    }

    async fn keep(&self, laid: &(dyn Fn() -> Vec<LaidTunnel> + Sync)) -> Result<(), TunnelError> {
        self.0.keep(laid).await
    }

    async fn collect(&self) -> Result<(), TunnelError> {
        self.0.collect().await
    }
}
