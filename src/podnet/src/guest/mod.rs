//! The guest end: a namespace for the pod in the VM, and in it each of the pod's interfaces with its own name, addresses, MAC and routes.
//!
//! Owns the namespace `podns`, the VXLAN devices in it, and of these the pod's addresses, the listed routes and neighbours and the
//! kernel's connected routes. What a container adds to them later (it may have the right to) is left alone by a repeated setup.
//! [`set_underlay`] gives the VM its own network, for a VM without a DHCP client.
//!
//! `plan` decides, this module observes and applies.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod plan;
mod refuse;
mod underlay;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use peerpods_podvm::network::{Carried, PodInterface, PodNetwork};

use self::plan::{Device, State, Step, Underlay, Wanted};
pub use self::refuse::refuse;
pub(crate) use self::refuse::{Answer, RoutingRule};
pub use self::underlay::set_underlay;
use crate::guard::{self, Admitted};
use crate::kernel::{Rtnl, failed};
use crate::netns::{self, Netns};
use crate::probe;
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
    /// Lays the tunnel of each of the pod's interfaces and gives these their addresses, or mends what is missing or different. The devices'
    /// UDP socket is in the calling thread's namespace, the VM's own.
    ///
    /// # Errors
    /// Names the step that failed. [`TunnelError::Unreachable`] while the VM has no route to the worker: worth another try.
    pub async fn setup(&self, network: &PodNetwork) -> Result<(), TunnelError> {
        if network.external_net_via_pod_vm {
            tracing::warn!(
                "external-net-via-pod-vm is not supported: all of the pod's traffic goes by the worker"
            );
        }
        let place = Place::open(&self.podns).await?;
        let underlay = place.underlay(network.worker_node_ip.addr()).await?;
        for wanted in plan::wanted(network, underlay)? {
            let state = place.observe(&wanted.interface.name).await?;
            // First: a device without its guard takes anybody's packets.
            guard::admit(admitted(network, wanted.vxlan.vni)).await?;
            for step in plan::setup(&state, &wanted) {
                place.apply(&step, &wanted).await?;
            }
        }
        Ok(())
    }

    /// Puts back what keeps others than the worker out of the pod's tunnels, should something in the VM have removed it (a distribution's
    /// firewall that starts late, say). To be called every minute, between setup and teardown. What containers did to the pod's
    /// interfaces is left alone.
    ///
    /// # Errors
    /// When something may be missing.
    pub async fn keep(&self, network: &PodNetwork) -> Result<(), TunnelError> {
        let all = || network.carried().iter().map(|one| admitted(network, one.vxlan_id)).collect();
        guard::keep(all).await
    }

    /// Tells the worker how large packets from this VM may be, by sending some of that size, in the next seconds. The worker's end
    /// listens for them when it verifies the path; nothing else takes notice.
    ///
    /// # Errors
    /// When the VM's own network cannot be read, or packets cannot be sent at all.
    pub async fn announce(&self, network: &PodNetwork) -> Result<(), TunnelError> {
        let place = Place::open(&self.podns).await?;
        let underlay = place.underlay(network.worker_node_ip.addr()).await?;
        let Some(primary) = plan::wanted(network, underlay)?.into_iter().next() else { return Ok(()) };
        probe::announce(network.worker_node_ip.addr(), &primary.vxlan, &primary.interface).await
    }

    /// Removes the pod's interfaces. Ok when there are none, and when the namespace is gone; the namespace stays.
    ///
    /// # Errors
    /// When something may be left.
    pub async fn teardown(&self, network: &PodNetwork) -> Result<(), TunnelError> {
        let place = match Place::open(&self.podns).await {
            Err(TunnelError::NoNetns { .. }) => {
                for Carried { vxlan_id, .. } in network.carried() {
                    guard::withdraw(vxlan_id, network.vxlan_port).await?;
                }
                return Ok(());
            }
            other => other?,
        };
        for Carried { vxlan_id, interface } in network.carried() {
            if let Some(device) = place.observe(&interface.name).await?.device {
                let name = &interface.name;
                let removed = place.pod_link.remove_link(device.found.index).await;
                removed.map_err(failed(format!("remove the pod's interface {name}")))?;
            }
            vxlan::remove_half_born(&place.pod_link, vxlan_id).await?;
            guard::withdraw(vxlan_id, network.vxlan_port).await?;
        }
        Ok(())
    }
}

fn admitted(network: &PodNetwork, vni: u32) -> Admitted {
    Admitted { vni, port: network.vxlan_port, peer: network.worker_node_ip.addr(), netns: None }
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

    /// The VM's way to the worker. IPv6 is made quiet on the way, before there is a device to be noisy.
    async fn underlay(&self, worker: IpAddr) -> Result<Underlay, TunnelError> {
        let towards = self.home_link.towards(worker).await?;
        let links = self.home_link.links().await?;
        let link = links.iter().find(|l| l.index == towards.link);
        let device = link.map(|l| l.mtu).ok_or(TunnelError::Unreachable { address: worker })?;
        let ipv6 = self.podns.quiet_ipv6().await?;
        let mtu = towards.mtu.map_or(device, |route| route.min(device));
        Ok(Underlay { mtu, ipv6, local: towards.source })
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

    async fn apply(&self, step: &Step, wanted: &Wanted) -> Result<(), TunnelError> {
        let place = self.podns.path().display();
        let PodInterface { name, mac, .. } = &wanted.interface;
        tracing::debug!(netns = %place, vni = wanted.vxlan.vni, ?step, "pod interface");
        if let Step::Create { vxlan, mtu } = step {
            let device = NewDevice { name: name.clone(), vxlan: vxlan.clone(), mtu: *mtu, mac: Some(*mac) };
            return vxlan::create(&self.home_link, &self.podns, &self.pod_link, &device).await;
        }
        let index = self.pod_link.link(name).await?.map(|l| l.index).unwrap_or_default();
        match step {
            Step::Create { .. } => Ok(()),
            Step::Remove { link } => self.pod_link.remove_link(*link).await,
            Step::SetMac => self.pod_link.set_mac(index, *mac).await,
            Step::SetMtu { mtu } => self.pod_link.set_mtu(index, *mtu).await,
            Step::RemoveAddress(net) => self.pod_link.remove_address(index, *net).await,
            Step::AddAddress(net) => self.pod_link.add_address_alone(index, *net).await,
            Step::SetUp => self.pod_link.set_up(index).await,
            Step::RemoveRoute(route) => self.pod_link.remove_route(index, route).await,
            Step::AddRoute(route) => self.pod_link.add_route(index, route).await,
            Step::SetNeighbour(ip, mac) => self.pod_link.set_neighbour(index, *ip, *mac).await,
        }
        .map_err(failed(format!("{step} ({name} in {place})")))
    }
}
