//! The plan, as tables: what is found, what is wanted, what is done.

use super::*;
use peerpods_podvm::network::Neighbor;

const LINK: u32 = 4;

fn route(dst: &str, gw: &str) -> Route {
    let protocol = if gw.is_empty() { RouteProtocol::Kernel } else { RouteProtocol::Boot };
    let scope = if gw.is_empty() { RouteScope::Link } else { RouteScope::Universe };
    Route {
        dst: dst.parse().unwrap(),
        gw: gw.parse().ok(),
        dev: "eth0".to_owned(),
        protocol: Some(protocol),
        scope,
        onlink: false,
    }
}

fn neighbour() -> Neighbor {
    Neighbor {
        ip: "10.244.1.1".parse().unwrap(),
        hw_addr: MacAddr([2, 0, 0, 0, 0, 9]),
        dev: "eth0".to_owned(),
        state: "permanent".to_owned(),
    }
}

fn network() -> PodNetwork {
    PodNetwork {
        podip: "10.244.1.7/24".parse().unwrap(),
        pod_hw_addr: MacAddr([2, 0, 0, 0, 0, 7]),
        interface: "eth0".to_owned(),
        worker_node_ip: "10.0.0.1/24".parse().unwrap(),
        tunnel_type: "vxlan".to_owned(),
        routes: vec![route("0.0.0.0/0", "10.244.1.1"), route("10.244.1.0/24", "")],
        neighbors: vec![neighbour()],
        mtu: 1500,
        index: 0,
        vxlan_port: 9000,
        vxlan_id: 555_000,
        dedicated: false,
        external_net_via_pod_vm: false,
    }
}

fn wanted_vxlan() -> Vxlan {
    Vxlan { vni: 555_000, port: 9000, remote: Some("10.0.0.1".parse().unwrap()), learning: false }
}

fn kernel_route(route: &Route) -> KernelRoute {
    KernelRoute {
        link: Some(LINK),
        dst: route.dst,
        gw: route.gw,
        protocol: if route.gw.is_none() {
            kernel::RouteProtocol::Kernel
        } else {
            kernel::RouteProtocol::Boot
        },
        scope: kernel::RouteScope::Universe,
        onlink: route.onlink,
        metric: 0,
    }
}

fn whole() -> Device {
    let network = network();
    Device {
        found: Found {
            index: LINK,
            vxlan: wanted_vxlan(),
            underlay_at_home: true,
            mtu: 1450,
            mac: Some(network.pod_hw_addr),
            up: true,
        },
        addresses: vec![network.podip, "fe80::1/64".parse().unwrap()],
        routes: network.routes.iter().map(kernel_route).collect(),
        neighbours: vec![(neighbour().ip, neighbour().hw_addr)],
    }
}

fn planned(device: Option<Device>) -> Vec<Step> {
    setup(&State { device }, &network(), 1500)
}

fn changed(change: impl FnOnce(&mut Device)) -> Vec<Step> {
    let mut device = whole();
    change(&mut device);
    planned(Some(device))
}

fn from_nothing() -> Vec<Step> {
    vec![
        Step::Create { vxlan: wanted_vxlan(), mtu: 1450 },
        Step::AddAddress,
        Step::SetUp,
        Step::AddRoute(route("10.244.1.0/24", "")),
        Step::AddRoute(route("0.0.0.0/0", "10.244.1.1")),
        Step::SetNeighbour(neighbour().ip, neighbour().hw_addr),
    ]
}

#[test]
fn a_whole_interface_needs_nothing() {
    assert_eq!(planned(Some(whole())), []);
}

#[test]
fn an_empty_namespace_gets_everything_with_link_routes_first() {
    assert_eq!(planned(None), from_nothing());
}

#[test]
fn a_device_of_another_tunnel_is_replaced() {
    let mut expected = vec![Step::Remove { link: LINK }];
    expected.extend(from_nothing());
    assert_eq!(changed(|d| d.found.vxlan.vni = 1), expected);
    assert_eq!(changed(|d| d.found.vxlan.remote = None), expected);
    assert_eq!(changed(|d| d.found.underlay_at_home = false), expected);
}

#[test]
fn each_damage_is_mended_alone() {
    assert_eq!(changed(|d| d.found.mac = None), [Step::SetMac]);
    assert_eq!(changed(|d| d.found.mtu = 1400), [Step::SetMtu { mtu: 1450 }]);
    assert_eq!(changed(|d| d.addresses.clear()), [Step::AddAddress]);
    assert_eq!(changed(|d| d.neighbours.clear()), [Step::SetNeighbour(neighbour().ip, neighbour().hw_addr)]);
    let down = changed(|d| {
        d.found.up = false;
        d.routes.clear();
    });
    assert_eq!(down[0], Step::SetUp);
    assert_eq!(down.len(), 3);
}

#[test]
fn an_address_with_another_prefix_length_is_replaced() {
    let other: Ipv4Net = "10.244.1.7/16".parse().unwrap();
    let steps = changed(|d| d.addresses = vec![IpNet::V4(other)]);
    assert_eq!(steps, [Step::RemoveAddress(other), Step::AddAddress]);
}

#[test]
fn a_default_route_by_another_gateway_is_replaced() {
    let other = route("0.0.0.0/0", "10.244.1.254");
    let steps = changed(|d| d.routes[0] = kernel_route(&other));
    let removed = Route { dev: String::new(), protocol: None, ..other };
    assert_eq!(steps, [Step::RemoveRoute(removed), Step::AddRoute(route("0.0.0.0/0", "10.244.1.1"))]);
}

#[test]
fn the_connected_route_goes_when_it_is_not_listed_and_what_containers_added_stays() {
    let connected = kernel_route(&route("10.9.0.0/16", ""));
    let steps = changed(|d| d.routes.push(connected.clone()));
    assert_eq!(steps, [Step::RemoveRoute(described(&connected))]);
    let added = kernel_route(&route("10.99.0.0/16", "10.244.1.3"));
    let added_neighbour = ("10.244.1.3".parse().unwrap(), MacAddr([2, 0, 0, 0, 0, 3]));
    let steps = changed(|d| {
        d.routes.push(added);
        d.neighbours.push(added_neighbour);
        d.addresses.push("10.244.1.99/32".parse().unwrap());
    });
    assert_eq!(steps, []);
}

#[test]
fn a_gateway_that_no_link_route_covers_is_declared_on_link() {
    let mut calico = network();
    calico.podip = "10.244.1.7/32".parse().unwrap();
    calico.routes = vec![route("0.0.0.0/0", "169.254.1.1")];
    let onlink = Route { onlink: true, ..route("0.0.0.0/0", "169.254.1.1") };
    assert_eq!(routes(&calico), [onlink]);
    // With a route to the gateway, as most plugins have one, it is not needed.
    calico.routes.push(route("169.254.1.1/32", ""));
    assert_eq!(routes(&calico), [route("169.254.1.1/32", ""), route("0.0.0.0/0", "169.254.1.1")]);
    // What the worker saw as onlink stays so.
    calico.routes[0].onlink = true;
    assert!(routes(&calico)[1].onlink);
}

#[test]
fn routes_by_other_interfaces_are_left_out_and_stock_ones_without_scope_are_put_on_the_link() {
    let mut odd = network();
    odd.routes = vec![
        Route { dev: "net1".to_owned(), ..route("10.1.0.0/16", "") },
        Route { scope: RouteScope::Universe, dev: String::new(), ..route("10.244.1.0/24", "") },
    ];
    let expected = Route { dev: String::new(), ..route("10.244.1.0/24", "") };
    assert_eq!(routes(&odd), [expected]);
}

#[test]
fn the_mtu_is_the_smaller_of_the_pods_and_what_the_underlay_carries() {
    assert_eq!(mtu(1500, 1500), 1450);
    assert_eq!(mtu(1500, 9001), 1500);
    assert_eq!(mtu(8951, 9001), 8951);
    assert_eq!(mtu(0, 1500), 1450);
}

#[test]
fn only_connected_routes_get_the_pods_address_as_source() {
    let network = network();
    assert_eq!(source(&network, &route("10.244.1.0/24", "")), Some("10.244.1.7".parse().unwrap()));
    assert_eq!(source(&network, &route("0.0.0.0/0", "10.244.1.1")), None);
}

#[test]
fn what_cannot_be_carried_is_refused() {
    let refused = |change: &dyn Fn(&mut PodNetwork)| {
        let mut network = network();
        change(&mut network);
        check(&network).unwrap_err().to_string()
    };
    assert!(check(&network()).is_ok());
    assert!(refused(&|n| n.podip = "fd00::7/64".parse().unwrap()).contains("fd00::7/64"));
    assert!(refused(&|n| n.worker_node_ip = "fd00::1/64".parse().unwrap()).contains("worker"));
    assert!(refused(&|n| n.routes[0].gw = Some("fe80::1".parse().unwrap())).contains("fe80::1"));
    assert!(refused(&|n| n.neighbors[0].ip = "fe80::1".parse().unwrap()).contains("fe80::1"));
    assert!(refused(&|n| n.tunnel_type = "routing".to_owned()).contains("routing"));
    assert!(refused(&|n| n.vxlan_port = 0).contains("port"));
}
