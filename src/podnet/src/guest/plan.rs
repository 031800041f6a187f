//! What has to be done for the pod's interface to be as described. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::route as kernel;
use peerpods_podvm::network::{MacAddr, PodNetwork, Route, RouteProtocol, RouteScope};

use crate::kernel::KernelRoute;
use crate::tunnel::TunnelError;
use crate::vxlan::{Found, OVERHEAD, Vxlan};

/// The pod's interface as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) found: Found,
    pub(super) addresses: Vec<IpNet>,
    pub(super) routes: Vec<KernelRoute>,
    /// Permanent ones.
    pub(super) neighbours: Vec<(IpAddr, MacAddr)>,
}

/// What was found in `podns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) device: Option<Device>,
}

/// One change to the pod's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Remove { link: u32 },
    Create { vxlan: Vxlan, mtu: u32 },
    SetMac,
    SetMtu { mtu: u32 },
    RemoveAddress(Ipv4Net),
    AddAddress,
    SetUp,
    RemoveRoute(Route),
    AddRoute(Route),
    SetNeighbour(IpAddr, MacAddr),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remove { .. } => f.write_str("remove the pod's interface"),
            Self::Create { vxlan, .. } => write!(f, "create the pod's interface (VNI {})", vxlan.vni),
            Self::SetMac => f.write_str("set the pod's MAC address"),
            Self::SetMtu { mtu } => write!(f, "set the MTU to {mtu}"),
            Self::RemoveAddress(net) => write!(f, "remove the address {net}"),
            Self::AddAddress => f.write_str("add the pod's address"),
            Self::SetUp => f.write_str("set the pod's interface up"),
            Self::RemoveRoute(route) => write!(f, "remove the route {}", Shown(route)),
            Self::AddRoute(route) => write!(f, "add the route {}", Shown(route)),
            Self::SetNeighbour(ip, mac) => write!(f, "add the neighbour {ip} at {mac}"),
        }
    }
}

/// A route in `ip route`'s words.
struct Shown<'a>(&'a Route);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.dst)?;
        if let Some(gw) = self.0.gw {
            write!(f, " via {gw}")?;
        }
        if self.0.onlink { f.write_str(" onlink") } else { Ok(()) }
    }
}

/// Refuses what no plan can be made for.
pub(super) fn check(network: &PodNetwork) -> Result<(), TunnelError> {
    let refuse = |what: String| Err(TunnelError::Unsupported { what });
    if network.tunnel_type != "vxlan" {
        return refuse(format!("the tunnel type {:?}; only vxlan is", network.tunnel_type));
    }
    if network.vxlan_port == 0 {
        return refuse("a tunnel without a UDP port".to_owned());
    }
    for (what, address) in [("pod", network.podip), ("worker", network.worker_node_ip)] {
        if address.addr().is_ipv6() {
            return refuse(format!("the {what} address {address}; only IPv4 is carried"));
        }
    }
    for route in &network.routes {
        if route.dst.addr().is_ipv6() || route.gw.is_some_and(|gw| gw.is_ipv6()) {
            return refuse(format!("the route {}; only IPv4 is carried", Shown(route)));
        }
    }
    match network.neighbors.iter().find(|n| n.ip.is_ipv6()) {
        Some(neighbour) => refuse(format!("the neighbour {}; only IPv4 is carried", neighbour.ip)),
        None => Ok(()),
    }
}

/// The steps from what is there to the interface as described; none when it is.
pub(super) fn setup(state: &State, network: &PodNetwork, underlay_mtu: u32) -> Vec<Step> {
    let wanted = Vxlan {
        vni: network.vxlan_id,
        port: network.vxlan_port,
        remote: Some(network.worker_node_ip.addr()),
        learning: false,
    };
    let mtu = mtu(network.mtu, underlay_mtu);
    let mut steps = Vec::new();
    let kept = state.device.as_ref().filter(|d| d.found.vxlan == wanted && d.found.underlay_at_home);
    if let Some(other) = state.device.as_ref().filter(|_| kept.is_none()) {
        steps.push(Step::Remove { link: other.found.index });
    }
    let Some(device) = kept else {
        steps.extend([Step::Create { vxlan: wanted, mtu }, Step::AddAddress, Step::SetUp]);
        route_steps(&mut steps, &[], network);
        neighbour_steps(&mut steps, &[], network);
        return steps;
    };
    steps.extend((device.found.mac != Some(network.pod_hw_addr)).then_some(Step::SetMac));
    steps.extend((device.found.mtu != mtu).then_some(Step::SetMtu { mtu }));
    address_steps(&mut steps, &device.addresses, network);
    steps.extend((!device.found.up).then_some(Step::SetUp));
    route_steps(&mut steps, &device.routes, network);
    neighbour_steps(&mut steps, &device.neighbours, network);
    steps
}

/// The pod's own MTU, if the underlay can carry it. Stock takes min(mtu, 1450) whatever the underlay is.
fn mtu(pod: u32, underlay: u32) -> u32 {
    let carried = underlay.saturating_sub(OVERHEAD);
    if pod == 0 { carried } else { pod.min(carried) }
}

fn address_steps(steps: &mut Vec<Step>, found: &[IpNet], network: &PodNetwork) {
    // The same address with another prefix length would stand beside ours.
    for net in found.iter().filter(|a| a.addr() == network.podip.addr() && **a != network.podip) {
        if let IpNet::V4(net) = net {
            steps.push(Step::RemoveAddress(*net));
        }
    }
    steps.extend((!found.contains(&network.podip)).then_some(Step::AddAddress));
}

fn neighbour_steps(steps: &mut Vec<Step>, found: &[(IpAddr, MacAddr)], network: &PodNetwork) {
    for neighbour in network.neighbors.iter().filter(|n| n.dev.is_empty() || n.dev == network.interface) {
        let wanted = (neighbour.ip, neighbour.hw_addr);
        steps.extend((!found.contains(&wanted)).then_some(Step::SetNeighbour(wanted.0, wanted.1)));
    }
}

fn route_steps(steps: &mut Vec<Step>, found: &[KernelRoute], network: &PodNetwork) {
    let wanted = routes(network);
    for route in found {
        let listed = wanted.iter().find(|w| w.dst == route.dst);
        let replaced = listed.is_some_and(|w| route.metric == 0 && !same(route, w));
        // An address brings this one along; some CNI plugins live from its absence.
        let connected = route.protocol == kernel::RouteProtocol::Kernel && route.gw.is_none();
        if replaced || (listed.is_none() && connected) {
            steps.push(Step::RemoveRoute(described(route)));
        }
    }
    let missing = wanted.into_iter().filter(|w| !found.iter().any(|route| same(route, w)));
    steps.extend(missing.map(Step::AddRoute));
}

fn same(found: &KernelRoute, wanted: &Route) -> bool {
    found.dst == wanted.dst && found.gw == wanted.gw && found.onlink == wanted.onlink && found.metric == 0
}

/// Enough of it for the kernel to find it again.
fn described(route: &KernelRoute) -> Route {
    let scope = if route.gw.is_some() { RouteScope::Universe } else { RouteScope::Link };
    let protocol = match route.protocol {
        kernel::RouteProtocol::Kernel => Some(RouteProtocol::Kernel),
        kernel::RouteProtocol::Static => Some(RouteProtocol::Static),
        kernel::RouteProtocol::Dhcp => Some(RouteProtocol::Dhcp),
        _ => None,
    };
    Route { dst: route.dst, gw: route.gw, dev: String::new(), protocol, scope, onlink: route.onlink }
}

/// The pod's routes as the kernel takes them: those without a gateway first, on the link; a gateway that none of them covers is
/// declared to be on the link.
fn routes(network: &PodNetwork) -> Vec<Route> {
    let mine = |r: &&Route| r.dev.is_empty() || r.dev == network.interface;
    let ours: Vec<&Route> = network.routes.iter().filter(mine).collect();
    let left_out = network.routes.len() - ours.len();
    if left_out > 0 {
        tracing::warn!(left_out, interface = network.interface, "routes by other interfaces are not carried");
    }
    let covered = |gw: &IpAddr| ours.iter().any(|r| r.gw.is_none() && r.dst.contains(gw));
    let mut out: Vec<Route> = ours
        .iter()
        .map(|route| Route {
            dst: route.dst.trunc(),
            scope: if route.gw.is_none() { RouteScope::Link } else { route.scope },
            onlink: route.gw.is_some_and(|gw| route.onlink || !covered(&gw)),
            ..(*route).clone()
        })
        .collect();
    out.sort_by_key(|route| route.gw.is_some());
    out
}

/// The source address a route gets: the pod's on connected routes, as the kernel itself would have done.
pub(super) fn source(network: &PodNetwork, route: &Route) -> Option<Ipv4Addr> {
    match network.podip.addr() {
        IpAddr::V4(pod) if route.protocol == Some(RouteProtocol::Kernel) && route.gw.is_none() => Some(pod),
        _ => None,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
