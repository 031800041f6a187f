//! Which interfaces are the pod's, and what the guest has to know of them. Pure.
//!
//! Carried is what carries Ethernet frames of its own: a veth, macvlan or ipvlan, a moved VLAN or SR-IOV device. A tunnel without frames, a
//! port of a bridge inside the pod, or a device on top of another one of the pod is left out, and said.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use netlink_packet_route::route as kernel;
use peerpods_podvm::network::{MacAddr, Neighbor, PodInterface, Route, RouteProtocol, RouteScope};

use super::is_ours;
use crate::kernel::{Address, KernelRoute, Link, LinkKind};
use crate::tunnel::TunnelError;

/// What was found in a pod's namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) netns: &'a Path,
    pub(super) links: &'a [Link],
    pub(super) addresses: &'a [Address],
    pub(super) routes: &'a [KernelRoute],
}

/// The pod's interfaces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Picked<'a> {
    pub(super) primary: &'a Link,
    pub(super) secondary: Vec<&'a Link>,
    /// With reasons.
    pub(super) left_out: Vec<String>,
}

/// Picks what is carried. Devices that are down are nobody's: the kernel makes some in every namespace.
pub(super) fn pick<'a>(found: &Found<'a>) -> Result<Picked<'a>, TunnelError> {
    let primary = primary(found)?;
    let (mut secondary, mut left_out) = (Vec::new(), Vec::new());
    for link in found.candidates().filter(|l| l.index != primary.index && l.up) {
        match obstacle(link, found) {
            None => secondary.push(link),
            Some(why) if found.has_address(link) => left_out.push(format!("interface {} {why}", link.name)),
            Some(_) => {}
        }
    }
    Ok(Picked { primary, secondary, left_out })
}

/// The default route's device; else the only one with an address, or `eth0` among several; else the only one there is.
fn primary<'a>(found: &Found<'a>) -> Result<&'a Link, TunnelError> {
    let defaults = |v4: bool| {
        let mine = move |r: &&KernelRoute| r.dst.prefix_len() == 0 && r.dst.addr().is_ipv4() == v4;
        found.routes.iter().filter(mine).min_by_key(|r| r.metric)
    };
    let default = defaults(true).or_else(|| defaults(false));
    if let Some(link) = default.and_then(|r| found.candidates().find(|l| Some(l.index) == r.link)) {
        return Ok(link);
    }
    let with_address: Vec<&Link> = found.candidates().filter(|l| found.has_address(l)).collect();
    let carriable: Vec<&Link> = found.candidates().filter(|l| obstacle(l, found).is_none()).collect();
    // What container runtimes call the pod's first interface.
    let usual = with_address.iter().find(|l| l.name == "eth0" && obstacle(l, found).is_none());
    match (with_address.as_slice(), usual, carriable.as_slice()) {
        ([only], ..) | ([], _, [only]) => Ok(only),
        (_, Some(usual), _) => Ok(usual),
        (with_address, _, without) => {
            let detail = ambiguity(&names(with_address), &names(without));
            Err(TunnelError::NoInterface { path: found.netns.to_owned(), detail })
        }
    }
}

/// Why a device's frames cannot be carried.
fn obstacle(link: &Link, found: &Found<'_>) -> Option<String> {
    let name = |index: u32| {
        found.links.iter().find(|l| l.index == index).map_or_else(String::new, |l| format!(" {}", l.name))
    };
    let below = link.lower.filter(|lower| link.other_netns.is_none() && *lower != link.index);
    match (&link.kind, link.controller, below) {
        (LinkKind::Other | LinkKind::Loopback, ..) => Some("carries no Ethernet frames".to_owned()),
        (_, Some(bridge), _) => Some(format!("is a port of the pod's own device{}", name(bridge))),
        (_, _, Some(lower)) => Some(format!("lies on another device of the pod,{}", name(lower))),
        _ => None,
    }
}

impl<'a> Found<'a> {
    fn candidates(&self) -> impl Iterator<Item = &'a Link> + use<'a> {
        self.links.iter().filter(|l| l.kind != LinkKind::Loopback && !is_ours(l))
    }

    fn has_address(&self, link: &Link) -> bool {
        self.addresses.iter().any(|a| a.link == link.index && (a.global || is_ipv4(a)))
    }
}

fn names(links: &[&Link]) -> String {
    links.iter().map(|l| l.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn ambiguity(with_address: &str, all: &str) -> String {
    match (with_address, all) {
        ("", "") => "it has no interface but lo".to_owned(),
        ("", all) => format!("none of {all} has an address"),
        (several, _) => format!("there is no default route, and an address on each of {several}"),
    }
}

/// Everything the guest has to know of an interface.
pub(super) fn describe(
    found: &Found<'_>,
    link: &Link,
    neighbours: &[(IpAddr, MacAddr)],
) -> Result<PodInterface, TunnelError> {
    let mac = link.mac.ok_or_else(|| TunnelError::NoInterface {
        path: found.netns.to_owned(),
        detail: format!("{} has no MAC address", link.name),
    })?;
    let neighbour = |(ip, hw_addr): &(IpAddr, MacAddr)| Neighbor {
        ip: *ip,
        hw_addr: *hw_addr,
        dev: link.name.clone(),
        state: "permanent".to_owned(),
    };
    let mut addresses = addresses(found, link).into_iter();
    let address = addresses.next().ok_or_else(|| TunnelError::NoAddress {
        path: found.netns.to_owned(),
        interface: link.name.clone(),
    })?;
    Ok(PodInterface {
        name: link.name.clone(),
        address,
        more_addresses: addresses.collect(),
        mac,
        mtu: link.mtu,
        routes: carried_routes(link, found.routes),
        neighbors: neighbours.iter().map(neighbour).collect(),
    })
}

fn is_ipv4(address: &Address) -> bool {
    matches!(address.net, IpNet::V4(_))
}

/// IPv4 before IPv6, and the link-local ones last; otherwise in the order they were given.
fn addresses(found: &Found<'_>, link: &Link) -> Vec<IpNet> {
    let mut own: Vec<&Address> = found.addresses.iter().filter(|a| a.link == link.index).collect();
    own.sort_by_key(|a| if is_ipv4(a) { 0 } else { 2 - u8::from(a.global) });
    own.into_iter().map(|a| a.net).collect()
}

/// Those without a gateway first. Of several with one destination and one metric the first stands for all.
fn carried_routes(link: &Link, routes: &[KernelRoute]) -> Vec<Route> {
    let mut carried: Vec<Route> = Vec::new();
    for route in routes.iter().filter(|r| r.link == Some(link.index)) {
        let Some(protocol) = protocol(route.protocol) else { continue };
        if carried.iter().any(|known| known.dst == route.dst && known.metric == route.metric) {
            continue;
        }
        carried.push(Route {
            dst: route.dst,
            gw: route.gw,
            dev: link.name.clone(),
            protocol: Some(protocol),
            scope: scope(route),
            onlink: route.onlink,
            metric: route.metric,
            src: route.src,
            mtu: route.mtu,
        });
    }
    carried.sort_by_key(|route| route.gw.is_some());
    carried
}

fn protocol(of: kernel::RouteProtocol) -> Option<RouteProtocol> {
    match of {
        kernel::RouteProtocol::Kernel => Some(RouteProtocol::Kernel),
        // What a router advertised is fixed in the guest, which takes no advertisements of its own.
        kernel::RouteProtocol::Boot | kernel::RouteProtocol::Ra => Some(RouteProtocol::Boot),
        kernel::RouteProtocol::Static => Some(RouteProtocol::Static),
        kernel::RouteProtocol::Dhcp => Some(RouteProtocol::Dhcp),
        _ => None,
    }
}

/// IPv6 routes have none.
fn scope(of: &KernelRoute) -> RouteScope {
    match of.scope {
        kernel::RouteScope::Site => RouteScope::Site,
        kernel::RouteScope::Link => RouteScope::Link,
        kernel::RouteScope::Host => RouteScope::Host,
        kernel::RouteScope::NoWhere => RouteScope::Nowhere,
        _ if of.gw.is_none() && of.dst.addr().is_ipv6() => RouteScope::Link,
        _ => RouteScope::Universe,
    }
}

#[cfg(test)]
#[path = "interface_tests.rs"]
mod tests;
