//! The guest end: a namespace for the pod in the VM, and in it an interface with the pod's own name, address, MAC and routes.
//!
//! Owns the namespace `podns`, the VXLAN device in it, and of that device the pod's address, its listed routes and neighbours and the
//! kernel's connected route. What a container adds to them later (it may have the right to) is left alone by a repeated setup.
//! [`set_underlay`] gives the VM its own network, for a VM without a DHCP client.
//!
//! `plan` decides, this module observes and applies.

mod plan;
mod refuse;
mod underlay;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use peerpods_podvm::network::PodNetwork;

use self::plan::{Device, State, Step};
pub use self::refuse::refuse;
pub(crate) use self::refuse::{Answer, RoutingRule};
pub use self::underlay::set_underlay;
use crate::guard::{self, Admitted};
use crate::kernel::{Rtnl, failed};
use crate::netns::{self, Netns};
use crate::tunnel::TunnelError;
use crate::vxlan::{self, NewDevice};

/// Makes the pod's named network namespace, unless it is there, and sets its loopback device up. Parent directories are made; `/proc`
/// has to be mounted.
///
/// # Errors
/// When it can be neither found nor made.
pub async fn ensure_podns(path: &Path) -> Result<(), TunnelError> {
    netns::make(path).await?;
    let inside = Netns::open(path).await?.connect().await?;
    inside.loopback_up().await.map_err(failed(format!("set lo in {} up", path.display())))
}

/// The guest end of a pod's tunnel. Its calls may be dropped at any await; a repeated one takes up what was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestTunnel {
    /// The pod's namespace, as [`ensure_podns`] made it.
    pub podns: PathBuf,
}

impl GuestTunnel {
    /// Lays the tunnel and gives the pod's interface its addresses, or mends what is missing or different. The device's UDP socket is
    /// in the calling thread's namespace, the VM's own.
    ///
    /// # Errors
    /// Names the step that failed. [`TunnelError::Unreachable`] while the VM has no route to the worker: worth another try.
    pub async fn setup(&self, network: &PodNetwork) -> Result<(), TunnelError> {
        plan::check(network)?;
        if network.external_net_via_pod_vm {
            tracing::warn!(
                "external-net-via-pod-vm is not supported: all of the pod's traffic goes by the worker"
            );
        }
        let place = Place::open(&self.podns).await?;
        let underlay_mtu = place.underlay_mtu(network.worker_node_ip.addr()).await?;
        let state = place.observe(&network.interface).await?;
        // First: a device without its guard takes anybody's packets.
        let (vni, port, peer) = (network.vxlan_id, network.vxlan_port, network.worker_node_ip.addr());
        guard::admit(Admitted { vni, port, peer, netns: None }).await?;
        for step in plan::setup(&state, network, underlay_mtu) {
            place.apply(&step, network).await?;
        }
        Ok(())
    }

    /// Removes the pod's interface. Ok when there is none, and when the namespace is gone; the namespace stays.
    ///
    /// # Errors
    /// When something may be left.
    pub async fn teardown(&self, network: &PodNetwork) -> Result<(), TunnelError> {
        let place = match Place::open(&self.podns).await {
            Err(TunnelError::NoNetns { .. }) => {
                return guard::withdraw(network.vxlan_id, network.vxlan_port).await;
            }
            other => other?,
        };
        let State { device } = place.observe(&network.interface).await?;
        if let Some(Device { found, .. }) = device {
            place.apply(&Step::Remove { link: found.index }, network).await?;
        }
        vxlan::remove_half_born(&place.pod_link, network.vxlan_id).await?;
        guard::withdraw(network.vxlan_id, network.vxlan_port).await
    }
}

/// The VM's and the pod's namespace, open.
struct Place {
    home: Netns,
    home_link: Rtnl,
    podns: Netns,
    pod_link: Rtnl,
}

impl Place {
    async fn open(podns: &Path) -> Result<Self, TunnelError> {
        let podns = Netns::open(podns).await?;
        let pod_link = podns.connect().await?;
        Ok(Self { home: Netns::own()?, home_link: Rtnl::here()?, podns, pod_link })
    }

    /// The MTU of the VM's interface towards the worker, in bytes.
    async fn underlay_mtu(&self, worker: IpAddr) -> Result<u32, TunnelError> {
        let index = self.home_link.device_towards(worker).await?;
        let links = self.home_link.links().await?;
        let link = links.iter().find(|l| l.index == index);
        link.map(|l| l.mtu).ok_or(TunnelError::Unreachable { address: worker })
    }

    async fn observe(&self, interface: &str) -> Result<State, TunnelError> {
        let Some(found) = vxlan::find(&self.pod_link, &self.home, interface).await? else {
            return Ok(State { device: None });
        };
        let addresses = self.pod_link.addresses().await?.into_iter();
        let routes = self.pod_link.routes().await?.into_iter();
        let device = Device {
            addresses: addresses.filter(|a| a.link == found.index).map(|a| a.net).collect(),
            routes: routes.filter(|r| r.link == Some(found.index)).collect(),
            neighbours: self.pod_link.permanent_neighbours(found.index).await?,
            found,
        };
        Ok(State { device: Some(device) })
    }

    async fn apply(&self, step: &Step, network: &PodNetwork) -> Result<(), TunnelError> {
        let place = self.podns.path().display();
        tracing::debug!(netns = %place, vni = network.vxlan_id, ?step, "pod interface");
        if let Step::Create { vxlan, mtu } = step {
            let mac = Some(network.pod_hw_addr);
            let device = NewDevice { name: network.interface.clone(), vxlan: vxlan.clone(), mtu: *mtu, mac };
            return vxlan::create(&self.home_link, &self.podns, &self.pod_link, &device).await;
        }
        let index = self.pod_link.link(&network.interface).await?.map(|l| l.index).unwrap_or_default();
        match step {
            Step::Create { .. } => Ok(()),
            Step::Remove { link } => self.pod_link.remove_link(*link).await,
            Step::SetMac => self.pod_link.set_mac(index, network.pod_hw_addr).await,
            Step::SetMtu { mtu } => self.pod_link.set_mtu(index, *mtu).await,
            Step::RemoveAddress(net) => self.pod_link.remove_address(index, *net).await,
            Step::AddAddress => self.pod_link.add_address_alone(index, network.podip).await,
            Step::SetUp => self.pod_link.set_up(index).await,
            Step::RemoveRoute(route) => self.pod_link.remove_route(index, route).await,
            Step::AddRoute(route) => {
                self.pod_link.add_route(index, route, plan::source(network, route)).await
            }
            Step::SetNeighbour(ip, mac) => self.pod_link.set_neighbour(index, *ip, *mac).await,
        }
        .map_err(failed(format!("{step} ({} in {place})", network.interface)))
    }
}
