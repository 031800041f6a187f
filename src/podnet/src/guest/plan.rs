//! What has to be done for the pod's interface to be as described. Pure.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::route as kernel;
use peerpods_podvm::network::{
    Carried, MacAddr, PodInterface, PodNetwork, Route, RouteProtocol, RouteScope, tunnel_mtu, vxlan_overhead,
};

use crate::kernel::KernelRoute;
use crate::tunnel::TunnelError;
use crate::vxlan::{Found, Vxlan};

/// The smallest MTU that carries IPv6, in bytes (RFC 8200).
const MTU_OF_IPV6: u32 = 1280;
/// The metric of IPv6 routes that are made without one.
const METRIC_OF_IPV6: u32 = 1024;

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
    RemoveAddress(IpNet),
    AddAddress(IpNet),
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
            Self::AddAddress(net) => write!(f, "add the address {net}"),
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
        if self.0.metric > 0 {
            write!(f, " metric {}", self.0.metric)?;
        }
        if self.0.onlink { f.write_str(" onlink") } else { Ok(()) }
    }
}

/// An interface as it is to be, with all that depends on this VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) interface: PodInterface,
    pub(super) vxlan: Vxlan,
}

/// What this VM can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Underlay {
    /// The largest packet on the way to the worker, in bytes.
    pub(super) mtu: u32,
    /// Whether its kernel has IPv6.
    pub(super) ipv6: bool,
    /// Its address on the way to the worker.
    pub(super) local: Option<IpAddr>,
}

/// What is to be made of a description, or why it cannot be.
pub(super) fn wanted(network: &PodNetwork, underlay: Underlay) -> Result<Vec<Wanted>, TunnelError> {
    let refuse = |what: String| Err(TunnelError::Unsupported { what });
    if network.tunnel_type != "vxlan" {
        return refuse(format!("the tunnel type {:?}; only vxlan is", network.tunnel_type));
    }
    if network.vxlan_port == 0 {
        return refuse("a tunnel without a UDP port".to_owned());
    }
    let carried = network.carried();
    for (at, one) in carried.iter().enumerate() {
        if carried.iter().take(at).any(|other| other.interface.name == one.interface.name) {
            return refuse(format!("two interfaces of the name {}", one.interface.name));
        }
    }
    carried.into_iter().map(|one| wanted_of(one, network, underlay)).collect()
}

fn wanted_of(carried: Carried, network: &PodNetwork, underlay: Underlay) -> Result<Wanted, TunnelError> {
    let Carried { vxlan_id, mut interface } = carried;
    let worker = network.worker_node_ip.addr();
    interface.mtu = tunnel_mtu(interface.mtu, underlay.mtu, worker);
    let link_local = |net: &IpNet| matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local());
    let ipv6 = interface.addresses().find(|net| net.addr().is_ipv6() && !link_local(net));
    match ipv6 {
        Some(address) if !underlay.ipv6 => {
            let what = format!(
                "the pod's address {address}: the VM's kernel has no IPv6, or it is disabled there (use an image whose kernel has it)"
            );
            return Err(TunnelError::Unsupported { what });
        }
        Some(address) if interface.mtu < MTU_OF_IPV6 => {
            let what = format!(
                "the pod's address {address} with an MTU of {}: IPv6 needs {MTU_OF_IPV6}, and {} on the network to the worker",
                interface.mtu,
                MTU_OF_IPV6 + vxlan_overhead(worker)
            );
            return Err(TunnelError::Unsupported { what });
        }
        // Nobody misses a link-local address.
        None if !underlay.ipv6 || interface.mtu < MTU_OF_IPV6 => forget_ipv6(&mut interface),
        _ => {}
    }
    interface.routes = routes(&interface);
    let (port, local) = (network.vxlan_port, underlay.local);
    let vxlan = Vxlan { vni: vxlan_id, port, local, remote: Some(worker), learning: false };
    Ok(Wanted { interface, vxlan })
}

fn forget_ipv6(interface: &mut PodInterface) {
    interface.more_addresses.retain(|net| net.addr().is_ipv4());
    interface.routes.retain(|route| route.dst.addr().is_ipv4());
    interface.neighbors.retain(|neighbour| neighbour.ip.is_ipv4());
}

/// The steps from what is there to the interface as described; none when it is.
pub(super) fn setup(state: &State, wanted: &Wanted) -> Vec<Step> {
    let Wanted { interface, vxlan } = wanted;
    let mut steps = Vec::new();
    let kept = state.device.as_ref().filter(|d| d.found.vxlan.serves_as(vxlan) && d.found.underlay_at_home);
    if let Some(other) = state.device.as_ref().filter(|_| kept.is_none()) {
        steps.push(Step::Remove { link: other.found.index });
    }
    let Some(device) = kept else {
        steps.push(Step::Create { vxlan: vxlan.clone(), mtu: interface.mtu });
        steps.extend(interface.addresses().map(Step::AddAddress));
        steps.push(Step::SetUp);
        route_steps(&mut steps, &[], &interface.routes);
        neighbour_steps(&mut steps, &[], interface);
        return steps;
    };
    steps.extend((device.found.mac != Some(interface.mac)).then_some(Step::SetMac));
    steps.extend((device.found.mtu != interface.mtu).then_some(Step::SetMtu { mtu: interface.mtu }));
    address_steps(&mut steps, &device.addresses, interface);
    steps.extend((!device.found.up).then_some(Step::SetUp));
    route_steps(&mut steps, &device.routes, &interface.routes);
    neighbour_steps(&mut steps, &device.neighbours, interface);
    steps
}

fn address_steps(steps: &mut Vec<Step>, found: &[IpNet], wanted: &PodInterface) {
    for net in wanted.addresses() {
        // The same address with another prefix length would stand beside ours.
        let other = found.iter().filter(|a| a.addr() == net.addr() && **a != net);
        steps.extend(other.map(|other| Step::RemoveAddress(*other)));
        steps.extend((!found.contains(&net)).then_some(Step::AddAddress(net)));
    }
}

fn neighbour_steps(steps: &mut Vec<Step>, found: &[(IpAddr, MacAddr)], wanted: &PodInterface) {
    for neighbour in wanted.neighbors.iter().filter(|n| n.dev.is_empty() || n.dev == wanted.name) {
        let wanted = (neighbour.ip, neighbour.hw_addr);
        steps.extend((!found.contains(&wanted)).then_some(Step::SetNeighbour(wanted.0, wanted.1)));
    }
}

fn route_steps(steps: &mut Vec<Step>, found: &[KernelRoute], wanted: &[Route]) {
    for route in found {
        let listed = wanted.iter().find(|w| w.dst == route.dst && metric(w) == route.metric);
        let replaced = listed.is_some_and(|w| !same(route, w));
        // An address brings this one along; some CNI plugins live from its absence.
        let connected = route.protocol == kernel::RouteProtocol::Kernel && route.gw.is_none();
        if replaced || (listed.is_none() && connected) {
            steps.push(Step::RemoveRoute(described(route)));
        }
    }
    let missing = wanted.iter().filter(|w| !found.iter().any(|route| same(route, w)));
    steps.extend(missing.cloned().map(Step::AddRoute));
}

fn same(found: &KernelRoute, wanted: &Route) -> bool {
    (found.dst, found.gw, found.onlink, found.metric, found.src, found.mtu)
        == (wanted.dst, wanted.gw, wanted.onlink, metric(wanted), wanted.src, wanted.mtu)
}

/// As the kernel will show it.
fn metric(route: &Route) -> u32 {
    match route.metric {
        0 if route.dst.addr().is_ipv6() => METRIC_OF_IPV6,
        metric => metric,
    }
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
    Route {
        dst: route.dst,
        gw: route.gw,
        dev: String::new(),
        protocol,
        scope,
        onlink: route.onlink,
        metric: route.metric,
        src: None,
        mtu: 0,
    }
}

/// The interface's routes as the kernel takes them: those without a gateway first, on the link; a gateway that none of them covers is
/// declared to be on the link.
fn routes(interface: &PodInterface) -> Vec<Route> {
    let mine = |r: &&Route| r.dev.is_empty() || r.dev == interface.name;
    let ours: Vec<&Route> = interface.routes.iter().filter(mine).collect();
    let left_out = interface.routes.len() - ours.len();
    if left_out > 0 {
        tracing::warn!(left_out, interface = interface.name, "routes by other interfaces are not carried");
    }
    // Where a link-local gateway is needs no saying.
    let link_local = |gw: &IpAddr| matches!(gw, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let covered = |gw: &IpAddr| link_local(gw) || ours.iter().any(|r| r.gw.is_none() && r.dst.contains(gw));
    let mut out: Vec<Route> = ours
        .iter()
        .map(|route| Route {
            dst: route.dst.trunc(),
            scope: if route.gw.is_none() { RouteScope::Link } else { route.scope },
            onlink: route.gw.is_some_and(|gw| route.onlink || !covered(&gw)),
            src: source(interface, route),
            mtu: if route.mtu < interface.mtu { route.mtu } else { 0 },
            ..(*route).clone()
        })
        .collect();
    out.sort_by_key(|route| route.gw.is_some());
    out
}

/// The source address a route gets: the one it was seen with, if the interface has it; else, for an IPv4 one on the link, the pod's own,
/// as the kernel itself would have done.
fn source(interface: &PodInterface, route: &Route) -> Option<IpAddr> {
    let own = |src: &IpAddr| interface.addresses().any(|net| net.addr() == *src);
    let connected =
        route.protocol == Some(RouteProtocol::Kernel) && route.gw.is_none() && route.dst.addr().is_ipv4();
    let implied = connected.then(|| interface.address.addr()).filter(IpAddr::is_ipv4);
    route.src.filter(own).or(implied)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
