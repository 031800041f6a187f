//! A pod's interfaces: what the worker sees of them, and how much of it a stock guest can be told.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{MacAddr, Neighbor, Route};

/// One interface of a pod, as the worker sees it and as the guest rebuilds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PodInterface {
    /// Name inside the pod, `eth0` as a rule.
    pub name: String,
    /// The first address and the length of its prefix; an IPv4 one where there is any.
    pub address: IpNet,
    /// The others, of both families, the IPv6 link-local one included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_addresses: Vec<IpNet>,
    /// The MAC address; the guest takes it over.
    pub mac: MacAddr,
    /// The interface's own MTU, in bytes.
    pub mtu: u32,
    /// Routes to copy, those without a gateway first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Permanent neighbours to copy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbors: Vec<Neighbor>,
}

/// What the worker sees of a pod in its network namespace. Read-only; the plan is made from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedPod {
    /// The interface of the pod's own address.
    pub primary: PodInterface,
    /// The others (Multus calls them net1, net2 and so on), in the kernel's order.
    pub secondary: Vec<PodInterface>,
    /// What cannot be carried, each with its reason, for the log.
    pub left_out: Vec<String>,
}

/// An interface with the VXLAN that carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Its VXLAN network identifier, unique on the worker for the tunnel's port.
    #[serde(rename = "vxlan-id")]
    pub vxlan_id: u32,
    /// The interface; its MTU is the one the guest sets.
    #[serde(flatten)]
    pub interface: PodInterface,
}

/// What the headers of a VXLAN tunnel to `worker` take from the underlay's MTU, in bytes: outer IP, UDP and VXLAN headers and the
/// inner Ethernet header, as the kernel counts them.
#[must_use]
pub fn vxlan_overhead(worker: IpAddr) -> u32 {
    if worker.is_ipv4() { 50 } else { 70 }
}

/// The largest packet a pod can send without the tunnel's packets being cut up on an underlay of this MTU: its own MTU, or what the
/// underlay carries. A pod's of 0 is not known. Stock takes min(mtu, 1450) whatever the underlay is.
#[must_use]
pub fn tunnel_mtu(pod: u32, underlay: u32, worker: IpAddr) -> u32 {
    let carried = underlay.saturating_sub(vxlan_overhead(worker));
    if pod == 0 { carried } else { pod.min(carried) }
}

impl PodInterface {
    /// All addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpNet> + '_ {
        std::iter::once(self.address).chain(self.more_addresses.iter().copied())
    }

    /// As much of it as a stock guest takes: one address, what is of its family, and of several routes to one destination the best. Stock
    /// fails at a route it cannot add.
    pub(super) fn stock_form(&self) -> Self {
        let family = self.address.addr().is_ipv4();
        let of_family = |route: &&Route| {
            route.dst.addr().is_ipv4() == family && route.gw.is_none_or(|gw| gw.is_ipv4() == family)
        };
        let mut routes: Vec<Route> = Vec::new();
        for route in self.routes.iter().filter(of_family) {
            match routes.iter_mut().find(|known| known.dst == route.dst) {
                Some(known) if known.metric > route.metric => *known = route.clone(),
                Some(_) => {}
                None => routes.push(route.clone()),
            }
        }
        routes.sort_by_key(|route| route.gw.is_some());
        for route in &mut routes {
            (route.metric, route.src, route.mtu) = (0, None, 0);
        }
        let neighbors = self.neighbors.iter().filter(|n| n.ip.is_ipv4() == family).cloned().collect();
        Self { more_addresses: Vec::new(), routes, neighbors, ..self.clone() }
    }
}

impl Carried {
    /// Without the interface's name in each route and neighbour: all are its own.
    pub(super) fn unnamed(mut self) -> Self {
        self.interface.routes.iter_mut().for_each(|route| route.dev.clear());
        self.interface.neighbors.iter_mut().for_each(|neighbour| neighbour.dev.clear());
        self
    }
}
