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
        metric: 0,
        src: None,
        mtu: 0,
    }
}

/// As it goes to the kernel: a connected IPv4 route has the pod's address as its source.
fn planned_route(dst: &str, gw: &str) -> Route {
    let src = gw.is_empty().then(|| "10.244.1.7".parse().unwrap());
    Route { src, ..route(dst, gw) }
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
        interfaces: Vec::new(),
    }
}

const VM: Underlay = Underlay { mtu: 1500, ipv6: true, local: None };

fn the_one(network: &PodNetwork) -> Wanted {
    wanted(network, VM).unwrap().remove(0)
}

/// The stock form's interface after a change.
fn interface(change: impl FnOnce(&mut PodNetwork)) -> PodInterface {
    let mut network = network();
    change(&mut network);
    the_one(&network).interface
}

fn wanted_vxlan() -> Vxlan {
    Vxlan { vni: 555_000, port: 9000, local: None, remote: "10.0.0.1".parse().ok(), learning: false }
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
        metric: metric(route),
        src: route.src,
        mtu: route.mtu,
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
            controller: None,
        },
        addresses: vec![network.podip, "fe80::1/64".parse().unwrap()],
        routes: the_one(&network).interface.routes.iter().map(kernel_route).collect(),
        neighbours: vec![(neighbour().ip, neighbour().hw_addr)],
    }
}

fn planned(device: Option<Device>) -> Vec<Step> {
    setup(&State { device }, &the_one(&network()))
}

fn changed(change: impl FnOnce(&mut Device)) -> Vec<Step> {
    let mut device = whole();
    change(&mut device);
    planned(Some(device))
}

fn from_nothing() -> Vec<Step> {
    vec![
        Step::Create { vxlan: wanted_vxlan(), mtu: 1450 },
        Step::AddAddress("10.244.1.7/24".parse().unwrap()),
        Step::SetUp,
        Step::AddRoute(planned_route("10.244.1.0/24", "")),
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
    let address = "10.244.1.7/24".parse().unwrap();
    assert_eq!(changed(|d| d.addresses.clear()), [Step::AddAddress(address)]);
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
    let other: IpNet = "10.244.1.7/16".parse().unwrap();
    let steps = changed(|d| d.addresses = vec![other]);
    assert_eq!(steps, [Step::RemoveAddress(other), Step::AddAddress("10.244.1.7/24".parse().unwrap())]);
}

#[test]
fn a_default_route_by_another_gateway_is_replaced() {
    let other = route("0.0.0.0/0", "10.244.1.254");
    let steps = changed(|d| d.routes[1] = kernel_route(&other));
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
    let calico = |more: Vec<Route>, onlink| {
        interface(|n| {
            n.podip = "10.244.1.7/32".parse().unwrap();
            n.routes = vec![Route { onlink, ..route("0.0.0.0/0", "169.254.1.1") }];
            n.routes.extend(more);
        })
        .routes
    };
    let onlink = Route { onlink: true, ..route("0.0.0.0/0", "169.254.1.1") };
    assert_eq!(calico(vec![], false), [onlink]);
    // With a route to the gateway, as most plugins have one, it is not needed.
    let to_it = || vec![route("169.254.1.1/32", "")];
    assert_eq!(
        calico(to_it(), false),
        [planned_route("169.254.1.1/32", ""), route("0.0.0.0/0", "169.254.1.1")]
    );
    // What the worker saw as onlink stays so, and a link-local gateway is on the link anyway.
    assert!(calico(to_it(), true)[1].onlink);
    assert!(!calico(vec![route("::/0", "fe80::1")], false)[1].onlink);
}

#[test]
fn routes_by_other_interfaces_are_left_out_and_stock_ones_without_scope_are_put_on_the_link() {
    let routes = interface(|n| {
        n.routes = vec![
            Route { dev: "net1".to_owned(), ..route("10.1.0.0/16", "") },
            Route { scope: RouteScope::Universe, dev: String::new(), ..route("10.244.1.0/24", "") },
        ];
    })
    .routes;
    assert_eq!(routes, [Route { dev: String::new(), ..planned_route("10.244.1.0/24", "") }]);
}

#[test]
fn a_source_is_kept_if_the_interface_has_it_and_a_routes_mtu_if_it_is_the_smaller() {
    let routes = interface(|n| {
        let src = |ip: &str, mtu| Route { src: ip.parse().ok(), mtu, ..route("10.9.0.0/16", "10.244.1.1") };
        n.routes = vec![src("10.244.1.7", 1400), src("10.3.3.3", 1500)];
    })
    .routes;
    let shown: Vec<_> = routes.iter().map(|r| (r.src, r.mtu)).collect();
    assert_eq!(shown, [("10.244.1.7".parse().ok(), 1400), (None, 0)]);
}

#[test]
fn routes_with_other_metrics_stand_side_by_side() {
    let both = interface(|n| {
        let by = |metric| Route { metric, ..route("0.0.0.0/0", "10.244.1.1") };
        n.routes = vec![by(100), by(200)];
    });
    let mut steps = Vec::new();
    let found: Vec<KernelRoute> = both.routes.iter().map(kernel_route).collect();
    route_steps(&mut steps, &found[..1], &both.routes);
    assert_eq!(steps, [Step::AddRoute(both.routes[1].clone())]);
    // The kernel shows IPv6 routes without a metric with 1024.
    let six = route("::/0", "fe80::1");
    let mut steps = Vec::new();
    route_steps(&mut steps, &[KernelRoute { metric: 1024, ..kernel_route(&six) }], &[six]);
    assert_eq!(steps, []);
}

#[test]
fn a_kernel_without_ipv6_makes_an_ipv4_pod_without_its_link_local_address() {
    let mut dual = network();
    let [mut one]: [_; 1] = dual.carried().try_into().unwrap();
    one.interface.more_addresses = vec!["fe80::7/64".parse().unwrap()];
    one.interface.routes.push(Route { metric: 256, ..route("fe80::/64", "") });
    dual.interfaces = vec![one.clone()];
    let addresses = |ipv6| {
        let all = wanted(&dual, Underlay { ipv6, ..VM }).unwrap().remove(0).interface;
        (all.addresses().count(), all.routes.len())
    };
    assert_eq!((addresses(true), addresses(false)), ((2, 3), (1, 2)));

    one.interface.more_addresses = vec!["fd00::7/64".parse().unwrap()];
    dual.interfaces = vec![one];
    let none = wanted(&dual, Underlay { ipv6: false, ..VM }).unwrap_err().to_string();
    assert!(none.contains("fd00::7/64") && none.contains("no IPv6"), "{none}");
    let small = wanted(&dual, Underlay { mtu: 1300, ..VM }).unwrap_err().to_string();
    assert!(small.contains("1280") && small.contains("1330"), "{small}");
}

#[test]
fn what_cannot_be_made_is_refused() {
    let refused = |change: &dyn Fn(&mut PodNetwork)| {
        let mut network = network();
        change(&mut network);
        wanted(&network, VM).unwrap_err().to_string()
    };
    assert!(wanted(&network(), VM).is_ok());
    assert!(refused(&|n| n.tunnel_type = "routing".to_owned()).contains("routing"));
    assert!(refused(&|n| n.vxlan_port = 0).contains("port"));
    let twice = refused(&|n| n.interfaces = [n.carried(), n.carried()].concat());
    assert!(twice.contains("two interfaces of the name eth0"), "{twice}");
}
