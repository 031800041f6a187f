//! Which interface is the pod's, and what the guest has to know of it. Pure.
//!
//! Secondary interfaces (Multus) and IPv6 addresses next to an IPv4 one are not carried; routes by other interfaces are left out,
//! because the guest has no such interface.

use std::path::Path;

use ipnet::IpNet;
use netlink_packet_route::route as kernel;
use peerpods_podvm::network::{MacAddr, Neighbor, PodInterface, Route, RouteProtocol, RouteScope};

use super::DEVICE;
use crate::kernel::{Address, KernelRoute, Link, LinkKind};
use crate::tunnel::TunnelError;

/// The default route's device; else the only one with an address; else the only one there is.
pub(super) fn choose<'a>(
    netns: &Path,
    links: &'a [Link],
    addresses: &[Address],
    routes: &[KernelRoute],
) -> Result<&'a Link, TunnelError> {
    let candidates: Vec<&Link> =
        links.iter().filter(|l| l.kind != LinkKind::Loopback && !is_ours(l)).collect();
    let default = routes.iter().filter(|r| r.dst.prefix_len() == 0).min_by_key(|r| r.metric);
    let by_route = default.and_then(|r| candidates.iter().find(|l| Some(l.index) == r.link));
    if let Some(link) = by_route {
        return Ok(link);
    }
    let has_address = |l: &&&Link| addresses.iter().any(|a| a.link == l.index && (a.global || is_ipv4(a)));
    let with_address: Vec<&&Link> = candidates.iter().filter(has_address).collect();
    let is_frame_device = |l: &&&Link| !matches!(l.kind, LinkKind::Other);
    let frame_devices: Vec<&&Link> = candidates.iter().filter(is_frame_device).collect();
    match (with_address.as_slice(), frame_devices.as_slice()) {
        ([only], _) | ([], [only]) => Ok(only),
        (with_address, without) => {
            let detail = ambiguity(&names(with_address), &names(without));
            Err(TunnelError::NoInterface { path: netns.to_owned(), detail })
        }
    }
}

fn names(links: &[&&Link]) -> String {
    links.iter().map(|l| l.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn ambiguity(with_address: &str, all: &str) -> String {
    match (with_address, all) {
        ("", "") => "it has no interface but lo".to_owned(),
        ("", all) => format!("none of {all} has an address"),
        (several, _) => format!("there is no default route, and an address on each of {several}"),
    }
}

/// Everything the guest has to know of the interface.
pub(super) fn describe(
    netns: &Path,
    link: &Link,
    addresses: &[Address],
    routes: &[KernelRoute],
    neighbours: &[(std::net::IpAddr, MacAddr)],
) -> Result<PodInterface, TunnelError> {
    let path = || netns.to_owned();
    let mac = link.mac.ok_or_else(|| TunnelError::NoInterface {
        path: path(),
        detail: format!("{} has no MAC address", link.name),
    })?;
    let neighbour = |(ip, hw_addr): &(std::net::IpAddr, MacAddr)| Neighbor {
        ip: *ip,
        hw_addr: *hw_addr,
        dev: link.name.clone(),
        state: "permanent".to_owned(),
    };
    Ok(PodInterface {
        name: link.name.clone(),
        address: address(netns, link, addresses)?,
        mac,
        mtu: link.mtu,
        routes: carried_routes(netns, link, routes)?,
        neighbors: neighbours.iter().map(neighbour).collect(),
    })
}

fn is_ours(link: &Link) -> bool {
    link.name == DEVICE && matches!(link.kind, LinkKind::Vxlan(_))
}

fn is_ipv4(address: &Address) -> bool {
    matches!(address.net, IpNet::V4(_))
}

fn address(netns: &Path, link: &Link, addresses: &[Address]) -> Result<IpNet, TunnelError> {
    let (v4, v6): (Vec<&Address>, Vec<&Address>) =
        addresses.iter().filter(|a| a.link == link.index).partition(|a| is_ipv4(a));
    match (v4.as_slice(), v6.iter().find(|a| a.global)) {
        ([only], _) => Ok(only.net),
        ([], Some(v6)) => Err(TunnelError::Unsupported {
            what: format!(
                "the IPv6 pod {} (interface {} in {}); a pod needs an IPv4 address",
                v6.net,
                link.name,
                netns.display()
            ),
        }),
        (all, _) => {
            let (path, interface) = (netns.to_owned(), link.name.clone());
            Err(TunnelError::Addresses { path, interface, count: all.len() })
        }
    }
}

/// Of several routes to one destination only the preferred one: the guest knows no metrics.
fn carried_routes(netns: &Path, link: &Link, routes: &[KernelRoute]) -> Result<Vec<Route>, TunnelError> {
    let mut best: Vec<(&KernelRoute, RouteProtocol)> = Vec::new();
    for route in routes.iter().filter(|r| r.link == Some(link.index)) {
        let Some(protocol) = protocol(route.protocol) else { continue };
        match best.iter_mut().find(|(known, _)| known.dst == route.dst) {
            Some(known) if known.0.metric > route.metric => *known = (route, protocol),
            Some(_) => {}
            None => best.push((route, protocol)),
        }
    }
    best.sort_by_key(|(route, _)| route.gw.is_some());
    best.into_iter().map(|(route, protocol)| carried(netns, link, route, protocol)).collect()
}

fn carried(
    netns: &Path,
    link: &Link,
    route: &KernelRoute,
    protocol: RouteProtocol,
) -> Result<Route, TunnelError> {
    if let Some(gw) = route.gw.filter(std::net::IpAddr::is_ipv6) {
        let what = format!("the route {} via {gw} (IPv6) in {}", route.dst, netns.display());
        return Err(TunnelError::Unsupported { what });
    }
    Ok(Route {
        dst: route.dst,
        gw: route.gw,
        dev: link.name.clone(),
        protocol: Some(protocol),
        scope: scope(route.scope),
        onlink: route.onlink,
    })
}

fn protocol(of: kernel::RouteProtocol) -> Option<RouteProtocol> {
    match of {
        kernel::RouteProtocol::Kernel => Some(RouteProtocol::Kernel),
        kernel::RouteProtocol::Boot => Some(RouteProtocol::Boot),
        kernel::RouteProtocol::Static => Some(RouteProtocol::Static),
        kernel::RouteProtocol::Dhcp => Some(RouteProtocol::Dhcp),
        _ => None,
    }
}

fn scope(of: kernel::RouteScope) -> RouteScope {
    match of {
        kernel::RouteScope::Site => RouteScope::Site,
        kernel::RouteScope::Link => RouteScope::Link,
        kernel::RouteScope::Host => RouteScope::Host,
        kernel::RouteScope::NoWhere => RouteScope::Nowhere,
        _ => RouteScope::Universe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vxlan::Vxlan;

    fn link(index: u32, name: &str, kind: LinkKind) -> Link {
        let mac = Some(MacAddr([2, 0, 0, 0, 0, 1]));
        Link { index, name: name.to_owned(), kind, up: true, mtu: 1450, mac, other_netns: None }
    }

    fn lo() -> Link {
        link(1, "lo", LinkKind::Loopback)
    }

    fn eth(index: u32) -> Link {
        link(index, &format!("eth{}", index - 2), LinkKind::VirtualEthernet)
    }

    fn our_device() -> Link {
        link(9, DEVICE, LinkKind::Vxlan(Vxlan { vni: 1, port: 9000, remote: None, learning: false }))
    }

    fn on(link: u32, net: &str) -> Address {
        Address { link, net: net.parse().unwrap(), global: true, secondary: false }
    }

    fn route(link: u32, dst: &str, gw: &str, metric: u32) -> KernelRoute {
        KernelRoute {
            link: Some(link),
            dst: dst.parse().unwrap(),
            gw: gw.parse().ok(),
            protocol: kernel::RouteProtocol::Boot,
            scope: if gw.is_empty() { kernel::RouteScope::Link } else { kernel::RouteScope::Universe },
            onlink: false,
            metric,
        }
    }

    fn chosen(links: &[Link], addresses: &[Address], routes: &[KernelRoute]) -> Result<String, String> {
        choose(Path::new("/ns"), links, addresses, routes).map(|l| l.name.clone()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_interface_of_the_default_route_with_the_lowest_metric_is_the_pods() {
        let links = [lo(), eth(2), eth(3), our_device()];
        let addresses = [on(2, "10.0.0.2/24"), on(3, "10.1.0.2/24")];
        let routes = [route(3, "0.0.0.0/0", "10.1.0.1", 100), route(2, "0.0.0.0/0", "10.0.0.1", 50)];
        assert_eq!(chosen(&links, &addresses, &routes), Ok("eth0".to_owned()));
    }

    #[test]
    fn without_a_default_route_it_is_the_only_one_with_an_address() {
        let links = [lo(), eth(2), eth(3), our_device()];
        assert_eq!(chosen(&links, &[on(1, "127.0.0.1/8"), on(3, "10.1.0.2/24")], &[]), Ok("eth1".to_owned()));
        let both = [on(2, "10.0.0.2/24"), on(3, "10.1.0.2/24")];
        let error = chosen(&links, &both, &[]).unwrap_err();
        assert!(error.contains("on each of eth0, eth1"), "{error}");
    }

    #[test]
    fn with_no_address_at_all_the_only_interface_is_named_and_the_count_is_zero() {
        let links = [lo(), eth(2), our_device()];
        assert_eq!(chosen(&links, &[], &[]), Ok("eth0".to_owned()));
        let error = describe(Path::new("/ns"), &eth(2), &[], &[], &[]).unwrap_err();
        assert!(matches!(error, TunnelError::Addresses { count: 0, .. }), "{error:?}");
        assert!(chosen(&[lo()], &[], &[]).unwrap_err().contains("no interface but lo"));
        assert!(chosen(&[lo(), eth(2), eth(3)], &[], &[]).unwrap_err().contains("none of eth0, eth1"));
    }

    #[test]
    fn exactly_one_ipv4_address_is_needed_and_ipv6_pods_are_refused() {
        let described = |addresses: &[Address]| describe(Path::new("/ns"), &eth(2), addresses, &[], &[]);
        assert_eq!(described(&[on(2, "10.0.0.2/24")]).unwrap().address, "10.0.0.2/24".parse().unwrap());
        let two = described(&[on(2, "10.0.0.2/24"), on(2, "10.0.0.3/24")]).unwrap_err();
        assert!(matches!(two, TunnelError::Addresses { count: 2, .. }), "{two:?}");
        let six = described(&[on(2, "fd00::2/64")]).unwrap_err();
        assert!(matches!(six, TunnelError::Unsupported { .. }), "{six:?}");
        assert!(described(&[on(2, "10.0.0.2/24"), on(2, "fd00::2/64")]).is_ok());
    }

    #[test]
    fn routes_are_the_interfaces_own_best_first_without_gateway() {
        let bird = KernelRoute { protocol: kernel::RouteProtocol::Bird, ..route(2, "10.9.0.0/16", "", 0) };
        let routes = [
            route(2, "0.0.0.0/0", "10.0.0.9", 200),
            route(2, "0.0.0.0/0", "10.0.0.1", 100),
            route(3, "10.1.0.0/24", "", 0),
            route(2, "10.0.0.0/24", "", 0),
            bird,
        ];
        let found = describe(Path::new("/ns"), &eth(2), &[on(2, "10.0.0.2/24")], &routes, &[]).unwrap();
        let shown: Vec<_> = found.routes.iter().map(|r| (r.dst.to_string(), r.gw, r.scope)).collect();
        let gw = Some("10.0.0.1".parse().unwrap());
        let expected = [
            ("10.0.0.0/24".to_owned(), None, RouteScope::Link),
            ("0.0.0.0/0".to_owned(), gw, RouteScope::Universe),
        ];
        assert_eq!(shown, expected);
        let six = [route(2, "0.0.0.0/0", "fe80::1", 0)];
        let error = describe(Path::new("/ns"), &eth(2), &[on(2, "10.0.0.2/24")], &six, &[]).unwrap_err();
        assert!(matches!(error, TunnelError::Unsupported { .. }), "{error:?}");
    }
}
