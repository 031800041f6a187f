//! What is picked and how it is described, as tables.

use super::*;
use crate::vxlan::Vxlan;

fn link(index: u32, name: &str, kind: LinkKind) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind,
        up: true,
        mtu: 1450,
        mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        other_netns: Some(1),
        lower: None,
        controller: None,
    }
}

fn lo() -> Link {
    link(1, "lo", LinkKind::Loopback)
}

fn eth(index: u32) -> Link {
    link(index, &format!("eth{}", index - 2), LinkKind::VirtualEthernet)
}

fn our_device() -> Link {
    link(
        9,
        "vxlan1",
        LinkKind::Vxlan(Vxlan { vni: 1, port: 9000, local: None, remote: None, learning: false }),
    )
}

fn on(link: u32, net: &str) -> Address {
    Address { link, net: net.parse().unwrap(), global: !net.starts_with("fe80"), secondary: false }
}

fn route(link: u32, dst: &str, gw: &str, metric: u32) -> KernelRoute {
    KernelRoute {
        link: Some(link),
        dst: dst.parse().unwrap(),
        gw: gw.parse().ok(),
        protocol: kernel::RouteProtocol::Boot,
        scope: if gw.is_empty() && !dst.contains(':') {
            kernel::RouteScope::Link
        } else {
            kernel::RouteScope::Universe
        },
        onlink: false,
        metric,
        src: None,
        mtu: 0,
    }
}

fn found<'a>(links: &'a [Link], addresses: &'a [Address], routes: &'a [KernelRoute]) -> Found<'a> {
    Found { netns: Path::new("/ns"), links, addresses, routes }
}

fn chosen(links: &[Link], addresses: &[Address], routes: &[KernelRoute]) -> Result<String, String> {
    pick(&found(links, addresses, routes)).map(|p| p.primary.name.clone()).map_err(|e| e.to_string())
}

#[test]
fn the_interface_of_the_default_route_with_the_lowest_metric_is_the_pods() {
    let links = [lo(), eth(2), eth(3), our_device()];
    let addresses = [on(2, "10.0.0.2/24"), on(3, "10.1.0.2/24")];
    let routes = [route(3, "0.0.0.0/0", "10.1.0.1", 100), route(2, "0.0.0.0/0", "10.0.0.1", 50)];
    assert_eq!(chosen(&links, &addresses, &routes), Ok("eth0".to_owned()));
    let six = [route(2, "::/0", "fe80::1", 1), route(3, "0.0.0.0/0", "10.1.0.1", 100)];
    assert_eq!(chosen(&links, &addresses, &six), Ok("eth1".to_owned()), "IPv4 decides where there is any");
    assert_eq!(chosen(&links, &addresses, &six[..1]), Ok("eth0".to_owned()));
}

#[test]
fn without_a_default_route_it_is_the_only_one_with_an_address_or_eth0() {
    let links = [lo(), eth(2), eth(3), our_device()];
    assert_eq!(chosen(&links, &[on(1, "127.0.0.1/8"), on(3, "10.1.0.2/24")], &[]), Ok("eth1".to_owned()));
    let both = [on(2, "10.0.0.2/24"), on(3, "10.1.0.2/24")];
    assert_eq!(chosen(&links, &both, &[]), Ok("eth0".to_owned()));
    let links = [lo(), eth(3), eth(4)];
    let both = [on(3, "10.0.0.2/24"), on(4, "10.1.0.2/24")];
    let error = chosen(&links, &both, &[]).unwrap_err();
    assert!(error.contains("on each of eth1, eth2"), "{error}");
}

#[test]
fn with_no_address_at_all_the_only_interface_is_named_and_the_lack_said() {
    let links = [lo(), eth(2), our_device()];
    assert_eq!(chosen(&links, &[], &[]), Ok("eth0".to_owned()));
    let error = describe(&found(&links, &[], &[]), &eth(2), &[]).unwrap_err();
    assert!(matches!(error, TunnelError::NoAddress { .. }), "{error:?}");
    assert!(chosen(&[lo()], &[], &[]).unwrap_err().contains("no interface but lo"));
    assert!(chosen(&[lo(), eth(2), eth(3)], &[], &[]).unwrap_err().contains("none of eth0, eth1"));
}

#[test]
fn other_interfaces_that_are_up_are_carried_and_what_cannot_be_is_said() {
    let mut down = link(4, "tunl0", LinkKind::Other);
    down.up = false;
    let tun = link(5, "tun0", LinkKind::Other);
    let vlan = Link { lower: Some(2), other_netns: None, ..link(6, "eth0.7", LinkKind::VirtualEthernet) };
    let port = Link { controller: Some(8), ..link(7, "net2", LinkKind::VirtualEthernet) };
    let bridge = Link { other_netns: None, ..link(8, "br0", LinkKind::VirtualEthernet) };
    let moved = Link { other_netns: None, ..link(10, "net3", LinkKind::Ethernet) };
    let links = [lo(), eth(2), eth(3), down, tun, vlan, port, bridge, our_device(), moved];
    let addresses: Vec<Address> = (2..=10).map(|n| on(n, &format!("10.{n}.0.2/24"))).collect();
    let routes = [route(2, "0.0.0.0/0", "10.2.0.1", 0)];
    let picked = pick(&found(&links, &addresses, &routes)).unwrap();
    let names: Vec<&str> = picked.secondary.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["eth1", "br0", "net3"]);
    assert_eq!(
        picked.left_out,
        [
            "interface tun0 carries no Ethernet frames",
            "interface eth0.7 lies on another device of the pod, eth0",
            "interface net2 is a port of the pod's own device br0",
        ]
    );
}

#[test]
fn addresses_of_both_families_are_carried_ipv4_first_and_link_local_last() {
    let addresses = [
        on(2, "fe80::2/64"),
        on(2, "fd00::2/64"),
        on(2, "10.0.0.2/24"),
        on(3, "10.9.0.2/24"),
        on(2, "10.0.0.3/32"),
    ];
    let all = describe(&found(&[], &addresses, &[]), &eth(2), &[]).unwrap();
    let shown: Vec<String> = all.addresses().map(|a| a.to_string()).collect();
    assert_eq!(shown, ["10.0.0.2/24", "10.0.0.3/32", "fd00::2/64", "fe80::2/64"]);
}

#[test]
fn routes_are_the_interfaces_own_with_their_metrics_first_without_gateway() {
    let bird = KernelRoute { protocol: kernel::RouteProtocol::Bird, ..route(2, "10.9.0.0/16", "", 0) };
    let learned = KernelRoute { protocol: kernel::RouteProtocol::Ra, ..route(2, "::/0", "fe80::1", 1024) };
    let routes = [
        route(2, "0.0.0.0/0", "10.0.0.9", 200),
        route(2, "0.0.0.0/0", "10.0.0.1", 100),
        route(2, "0.0.0.0/0", "10.0.0.7", 100),
        route(3, "10.1.0.0/24", "", 0),
        route(2, "10.0.0.0/24", "", 0),
        bird,
        learned,
        route(2, "fd00::/64", "", 256),
    ];
    let described = describe(&found(&[], &[on(2, "10.0.0.2/24")], &routes), &eth(2), &[]).unwrap();
    let shown: Vec<_> = described
        .routes
        .iter()
        .map(|r| (r.dst.to_string(), r.gw.map(|g| g.to_string()), r.metric, r.scope))
        .collect();
    let via =
        |dst: &str, gw: &str, metric| (dst.to_owned(), Some(gw.to_owned()), metric, RouteScope::Universe);
    let expected = [
        ("10.0.0.0/24".to_owned(), None, 0, RouteScope::Link),
        ("fd00::/64".to_owned(), None, 256, RouteScope::Link),
        via("0.0.0.0/0", "10.0.0.9", 200),
        via("0.0.0.0/0", "10.0.0.1", 100),
        via("::/0", "fe80::1", 1024),
    ];
    assert_eq!(shown, expected);
    assert_eq!(described.routes[4].protocol, Some(RouteProtocol::Boot));
}
