//! The kernel's tunnels: devices that outlive the daemon, laid and removed in several steps each.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use peerpods_podnet::{Probe, Tunnel, TunnelError, TunnelSpec};
use peerpods_podvm::network::{MacAddr, ObservedPod, PodInterface};

use super::invariants;
use super::world::{Incarnation, Seam, Slot, World};

/// The VXLAN devices by VNI and port.
#[derive(Default)]
pub struct Kernel {
    /// The devices there are.
    pub devices: BTreeMap<(u32, u16), Device>,
}

/// One VXLAN device and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The namespace it is in.
    pub netns: PathBuf,
    /// The other end.
    pub remote: IpAddr,
    /// It is up and both directions are redirected: the tunnel carries packets.
    pub complete: bool,
    /// Its namespace is gone and the kernel will have removed it by then.
    pub lingers_until: Option<u64>,
}

impl Kernel {
    /// The namespace was removed; its devices go a little later.
    pub fn forget_netns(&mut self, netns: &Path, until: u64) {
        for device in self.devices.values_mut().filter(|device| device.netns == netns) {
            device.lingers_until = Some(until);
        }
    }

    /// Removes what the kernel has removed by now.
    pub fn expire(&mut self, now: u64) {
        self.devices.retain(|_, device| device.lingers_until.is_none_or(|until| until > now));
    }
}

/// What is there in place of the device that is wanted.
enum Found {
    Nothing,
    Ours(Device),
    Other,
}

impl Incarnation {
    fn pod_at(&self, netns: &Path) -> Option<String> {
        self.world.state().pods.at(netns)
    }

    fn tunnel_slot(&self, netns: &Path) -> (Slot, String) {
        let owner = netns.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (self.world.slot(Some(&owner), Seam::Tunnel), owner)
    }

    fn look(&self, netns: &Path, spec: &TunnelSpec) -> Found {
        let now = self.world.now();
        let mut state = self.world.state();
        state.kernel.expire(now);
        match state.kernel.devices.get(&(spec.vni, spec.port)) {
            None => Found::Nothing,
            Some(device) if device.netns == netns && device.lingers_until.is_none() => {
                Found::Ours(device.clone())
            }
            Some(_) => Found::Other,
        }
    }

    async fn lay(&self, netns: &Path, spec: &TunnelSpec) {
        let (slot, owner) = self.tunnel_slot(netns);
        let device =
            Device { netns: netns.to_owned(), remote: spec.remote, complete: false, lingers_until: None };
        self.world.state().kernel.devices.insert((spec.vni, spec.port), device);
        self.point(slot, "vxlan device added", &owner).await;
        self.point(slot, "vxlan device up", &owner).await;
        self.finish(spec);
        self.point(slot, "redirects added", &owner).await;
    }

    fn finish(&self, spec: &TunnelSpec) {
        if let Some(device) = self.world.state().kernel.devices.get_mut(&(spec.vni, spec.port)) {
            device.complete = true;
        }
    }

    async fn lift(&self, netns: &Path, spec: &TunnelSpec) {
        let (slot, owner) = self.tunnel_slot(netns);
        invariants::before_a_cut(&self.world, &owner, "its tunnel was taken down");
        if let Some(device) = self.world.state().kernel.devices.get_mut(&(spec.vni, spec.port)) {
            device.complete = false;
        }
        self.point(slot, "redirects removed", &owner).await;
        self.world.state().kernel.devices.remove(&(spec.vni, spec.port));
        self.point(slot, "vxlan device removed", &owner).await;
    }

    fn netlink_fault(&self, owner: &str) -> Result<(), TunnelError> {
        if self.world.luck(owner, "netlink").chance(self.world.plan.netlink_faults) {
            let source = std::io::Error::other("the plan says so");
            return Err(TunnelError::Kernel { step: "do what was asked".to_owned(), source });
        }
        Ok(())
    }
}

/// The pod's network as its CNI made it: every third pod has a second interface.
fn observed(lane: u64) -> ObservedPod {
    let last = u8::try_from(lane % 250).unwrap_or_default() + 2;
    let interface = |name: &str, net: u8| PodInterface {
        name: name.to_owned(),
        address: ipnet::IpNet::new_assert([10, net, 0, last].into(), 24),
        more_addresses: Vec::new(),
        mac: MacAddr([2, net, 0, 0, 0, last]),
        mtu: 1450,
        routes: Vec::new(),
        neighbors: Vec::new(),
    };
    let secondary = lane.is_multiple_of(3).then(|| interface("net1", 2));
    ObservedPod {
        primary: interface("eth0", 1),
        secondary: secondary.into_iter().collect(),
        left_out: Vec::new(),
    }
}

/// Whether the namespace is there.
fn there(world: &World, netns: &Path) -> Result<(), TunnelError> {
    match world.state().pods.at(netns) {
        Some(_) => Ok(()),
        None => Err(TunnelError::NoNetns { path: netns.to_owned() }),
    }
}

#[async_trait]
impl Tunnel for Incarnation {
    async fn observe(&self, netns: &Path) -> Result<ObservedPod, TunnelError> {
        let (slot, owner) = self.tunnel_slot(netns);
        self.point(slot, "pod network read", &owner).await;
        there(&self.world, netns)?;
        self.netlink_fault(&owner)?;
        Ok(observed(self.world.state().pods.lane(&owner)))
    }

    async fn underlay_mtu(&self, _: IpAddr) -> Result<Option<u32>, TunnelError> {
        Ok(Some(1500))
    }

    async fn verify(&self, netns: &Path, spec: &TunnelSpec, _: Probe) -> Result<(), TunnelError> {
        let (slot, owner) = self.tunnel_slot(netns);
        self.point(slot, "tunnel tried", &owner).await;
        match self.look(netns, spec) {
            Found::Ours(device) if device.complete => Ok(()),
            _ => Err(TunnelError::Silent { local: spec.remote, remote: spec.remote, port: spec.port }),
        }
    }

    async fn setup(&self, netns: &Path, spec: &TunnelSpec) -> Result<(), TunnelError> {
        let (slot, owner) = self.tunnel_slot(netns);
        self.point(slot, "tunnel read", &owner).await;
        there(&self.world, netns)?;
        self.netlink_fault(&owner)?;
        match self.look(netns, spec) {
            Found::Other => return Err(TunnelError::VniInUse { vni: spec.vni, port: spec.port }),
            Found::Ours(device) if device.complete && device.remote == spec.remote => return Ok(()),
            Found::Ours(_) => self.lift(netns, spec).await,
            Found::Nothing => {}
        }
        self.lay(netns, spec).await;
        Ok(())
    }

    async fn teardown(&self, netns: &Path, spec: &TunnelSpec) -> Result<(), TunnelError> {
        let (slot, owner) = self.tunnel_slot(netns);
        self.point(slot, "tunnel read", &owner).await;
        self.netlink_fault(&owner)?;
        if self.pod_at(netns).is_some() && matches!(self.look(netns, spec), Found::Ours(_)) {
            self.lift(netns, spec).await;
        }
        Ok(())
    }
}
