//! The encodings stock's Go code writes and reads, and the golden `pod-network` object.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::hostile::any_text;

fn golden() -> Value {
    let apf: Value = serde_json::from_str(include_str!("../../tests/golden/apf-stock.json")).unwrap();
    apf["pod-network"].clone()
}

fn route(json: Value) -> Result<Route, serde_json::Error> {
    serde_json::from_value(json)
}

#[test]
fn the_golden_object_is_read_whole() {
    let network: PodNetwork = serde_json::from_value(golden()).unwrap();
    let plain = |dst: &str, gw: Option<&str>, protocol, scope| Route {
        dst: dst.parse().unwrap(),
        gw: gw.map(|gw| gw.parse().unwrap()),
        dev: "eth0".into(),
        protocol,
        scope,
        onlink: false,
        metric: 0,
        src: None,
        mtu: 0,
    };
    let expected = PodNetwork {
        podip: "10.244.1.7/24".parse().unwrap(),
        pod_hw_addr: MacAddr([0x2e, 0x6f, 0x11, 0x22, 0x33, 0x44]),
        interface: "eth0".into(),
        worker_node_ip: "192.168.122.63/24".parse().unwrap(),
        tunnel_type: "vxlan".into(),
        routes: vec![
            plain("0.0.0.0/0", Some("10.244.1.1"), Some(RouteProtocol::Boot), RouteScope::Universe),
            plain("10.244.0.0/16", Some("10.244.1.1"), None, RouteScope::Universe),
            plain("10.244.1.0/24", None, Some(RouteProtocol::Kernel), RouteScope::Link),
        ],
        neighbors: Vec::new(),
        mtu: 1450,
        index: 0,
        vxlan_port: 4789,
        vxlan_id: 555_000,
        dedicated: false,
        external_net_via_pod_vm: false,
        interfaces: Vec::new(),
    };
    assert_eq!(network, expected);
    let [Carried { vxlan_id, interface }]: [_; 1] = network.carried().try_into().unwrap();
    assert_eq!(vxlan_id, 555_000);
    assert_eq!((interface.name.as_str(), interface.address, interface.mtu), ("eth0", network.podip, 1450));
    assert_eq!((interface.mac, interface.routes), (network.pod_hw_addr, network.routes));
}

#[test]
fn the_golden_object_is_written_back_key_for_key() {
    let mut expected = golden();
    expected["neighbors"] = json!([]);
    let network: PodNetwork = serde_json::from_value(golden()).unwrap();
    assert_eq!(serde_json::to_value(network).unwrap(), expected);
}

#[test]
fn a_default_route_in_gos_long_form_is_read_and_written_in_the_short_one() {
    for dst in ["0.0.0.0/0", "::ffff:0.0.0.0/0", "::FFFF:0.0.0.0/0", "0:0:0:0:0:ffff:0:0/0"] {
        let read = route(json!({"dst": dst, "gw": "10.0.0.1", "dev": "eth0", "protocol": "boot"})).unwrap();
        assert_eq!(read.dst, "0.0.0.0/0".parse::<IpNet>().unwrap());
        assert_eq!(serde_json::to_value(&read).unwrap()["dst"], "0.0.0.0/0");
    }
    let long = route(json!({"dst": "::ffff:10.244.0.0/16", "gw": "::ffff:10.244.1.1"})).unwrap();
    assert_eq!(
        (long.dst.to_string(), long.gw.unwrap().to_string()),
        ("10.244.0.0/16".into(), "10.244.1.1".into())
    );
    let six = route(json!({"dst": "::/0", "gw": "fe80::1"})).unwrap();
    assert_eq!((six.dst.to_string(), six.gw.unwrap().to_string()), ("::/0".into(), "fe80::1".into()));
}

#[test]
fn no_gateway_is_the_empty_text() {
    for none in [
        json!({"dst": "10.0.0.0/8", "gw": ""}),
        json!({"dst": "10.0.0.0/8", "gw": null}),
        json!({"dst": "10.0.0.0/8"}),
    ] {
        let read = route(none).unwrap();
        assert_eq!(read.gw, None);
        assert_eq!(serde_json::to_value(&read).unwrap(), json!({"dst": "10.0.0.0/8", "gw": ""}));
    }
}

#[test]
fn only_the_words_stock_knows_are_read() {
    for word in ["static", "boot", "dhcp", "kernel"] {
        let read = route(json!({"dst": "10.0.0.0/8", "protocol": word})).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap()["protocol"], word);
    }
    for word in ["universe", "site", "link", "host", "nowhere"] {
        let read = route(json!({"dst": "10.0.0.0/8", "scope": word})).unwrap();
        let written = serde_json::to_value(&read).unwrap();
        let expected = if word == "universe" { &Value::Null } else { &json!(word) };
        assert_eq!(written.get("scope").unwrap_or(&Value::Null), expected);
    }
    for bad in [
        json!({"dst": "10.0.0.0/8", "protocol": "bird"}),
        json!({"dst": "10.0.0.0/8", "protocol": "Boot"}),
        json!({"dst": "10.0.0.0/8", "protocol": 3}),
        json!({"dst": "10.0.0.0/8", "scope": "global"}),
        json!({"dst": "10.0.0.0/8", "scope": "253"}),
    ] {
        assert!(route(bad.clone()).is_err(), "{bad} was accepted");
    }
}

#[test]
fn null_and_absent_lists_are_empty_and_zero_tunnel_numbers_are_left_out() {
    let mut object = golden();
    object["routes"] = Value::Null;
    let map = object.as_object_mut().unwrap();
    for key in ["neighbors", "vxlan-port", "vxlan-id", "index", "dedicated", "external-net-via-pod-vm"] {
        map.remove(key);
    }
    let network: PodNetwork = serde_json::from_value(object).unwrap();
    assert!(network.routes.is_empty() && network.neighbors.is_empty());
    let written = serde_json::to_value(&network).unwrap();
    assert!(written.get("vxlan-port").is_none() && written.get("vxlan-id").is_none());
    assert_eq!((&written["dedicated"], &written["external-net-via-pod-vm"]), (&json!(false), &json!(false)));
    assert_eq!((&written["routes"], &written["neighbors"]), (&json!([]), &json!([])));
}

#[test]
fn a_neighbour_is_written_as_stock_writes_it() {
    let json =
        json!({"ip": "169.254.1.1", "hw-addr": "ee:ee:ee:ee:ee:ee", "dev": "eth0", "state": "permanent"});
    let neighbor: Neighbor = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(neighbor.hw_addr, MacAddr([0xee; 6]));
    assert_eq!(serde_json::to_value(neighbor).unwrap(), json);
}

#[test]
fn our_own_key_appears_only_when_it_says_something() {
    let onlink = route(json!({"dst": "0.0.0.0/0", "gw": "169.254.1.1", "onlink": true})).unwrap();
    assert_eq!(serde_json::to_value(&onlink).unwrap()["onlink"], true);
    let plain = Route { onlink: false, ..onlink };
    assert!(serde_json::to_value(plain).unwrap().get("onlink").is_none());
}

fn dual_stack() -> PodInterface {
    let plain = |dst: &str, gw: &str, metric| Route {
        dst: dst.parse().unwrap(),
        gw: gw.parse().ok(),
        dev: "eth0".into(),
        protocol: Some(RouteProtocol::Boot),
        scope: if gw.is_empty() { RouteScope::Link } else { RouteScope::Universe },
        onlink: false,
        metric,
        src: None,
        mtu: 0,
    };
    let neighbour = |ip: &str| Neighbor {
        ip: ip.parse().unwrap(),
        hw_addr: MacAddr([0xee; 6]),
        dev: "eth0".into(),
        state: "permanent".into(),
    };
    PodInterface {
        name: "eth0".into(),
        address: "10.244.1.7/32".parse().unwrap(),
        more_addresses: vec!["fd00::7/128".parse().unwrap(), "fe80::7/64".parse().unwrap()],
        mac: MacAddr([2, 0, 0, 0, 0, 7]),
        mtu: 1450,
        routes: vec![
            plain("169.254.1.1/32", "", 0),
            plain("0.0.0.0/0", "169.254.1.2", 200),
            plain("0.0.0.0/0", "169.254.1.1", 100),
            plain("::/0", "fe80::1", 1024),
        ],
        neighbors: vec![neighbour("169.254.1.1"), neighbour("fe80::1")],
    }
}

#[test]
fn a_stock_guest_is_told_one_address_and_only_routes_it_can_add() {
    let worker = "10.0.0.1/24".parse().unwrap();
    let primary = Carried { vxlan_id: 7, interface: dual_stack() };
    let second = PodInterface { name: "net1".into(), more_addresses: Vec::new(), ..dual_stack() };
    let network =
        PodNetwork::new(primary.clone(), vec![Carried { vxlan_id: 8, interface: second }], worker, 9000);
    let shown: Vec<_> = network.routes.iter().map(|r| (r.dst.to_string(), r.gw, r.metric)).collect();
    let gw = Some("169.254.1.1".parse().unwrap());
    assert_eq!(shown, [("169.254.1.1/32".to_owned(), None, 0), ("0.0.0.0/0".to_owned(), gw, 0)]);
    assert_eq!((network.neighbors.len(), network.vxlan_id), (1, 7));
    assert_eq!(network.beyond_stock(), ["address fd00::7/128", "2 metrics of routes", "interface net1"]);
    // The guest of ours gets everything; a route's interface goes without saying there.
    let carried = network.carried();
    assert_eq!((carried.len(), carried[1].vxlan_id), (2, 8));
    assert_eq!(carried[0], primary.unnamed());
    let stock = PodNetwork { interfaces: Vec::new(), ..network };
    assert_eq!(stock.carried()[0].interface.address, stock.podip);
    assert!(stock.beyond_stock().is_empty());
}

#[test]
fn an_ipv6_only_pod_has_its_ipv6_network_in_stocks_keys() {
    let only =
        PodInterface { address: "fd00::7/128".parse().unwrap(), more_addresses: vec![], ..dual_stack() };
    let network =
        PodNetwork::new(Carried { vxlan_id: 7, interface: only }, vec![], "10.0.0.1/24".parse().unwrap(), 9);
    assert_eq!(network.podip.to_string(), "fd00::7/128");
    assert_eq!((network.routes.len(), network.neighbors.len()), (1, 1));
    assert!(network.routes[0].dst.addr().is_ipv6());
}

#[test]
fn what_is_no_address_is_refused() {
    for bad in [
        json!({"dst": "10.0.0.0"}),
        json!({"dst": "10.0.0.0/33"}),
        json!({"dst": "::ffff:10.0.0.0/112"}),
        json!({"dst": ""}),
        json!({"dst": "10.0.0.0/8", "gw": "x"}),
        json!({"gw": "10.0.0.1"}),
    ] {
        assert!(route(bad.clone()).is_err(), "{bad} was accepted");
    }
    for bad in [
        "",
        "2e:6f:11:22:33",
        "2e:6f:11:22:33:44:55",
        "2e-6f-11-22-33-44",
        "2e:6f:11:22:33:4",
        "zz:6f:11:22:33:44",
        "+e:6f:11:22:33:44",
    ] {
        assert!(bad.parse::<MacAddr>().is_err(), "{bad:?} was accepted");
    }
}

proptest! {
    #[test]
    fn every_network_comes_back_as_it_was_written(
        v4 in any::<u32>(), v6 in any::<u128>(), len in 0_u8..=32, mac in any::<[u8; 6]>(), mtu in any::<u32>(),
        port in any::<u16>(), vni in any::<u32>(), onlink in any::<bool>(),
    ) {
        let v4 = IpAddr::from(v4.to_be_bytes());
        let v6 = IpAddr::from(v6.to_be_bytes()).to_canonical();
        let route = Route {
            dst: IpNet::new(v4, len).unwrap(),
            gw: Some(v6),
            dev: "eth0".into(),
            protocol: Some(RouteProtocol::Dhcp),
            scope: RouteScope::Site,
            onlink,
            metric: mtu,
            src: onlink.then_some(v6),
            mtu: vni,
        };
        let interface = PodInterface {
            name: "net1".into(),
            address: IpNet::new(v4, len).unwrap(),
            more_addresses: vec![IpNet::new(v6, len).unwrap()],
            mac: MacAddr(mac),
            mtu,
            routes: vec![route.clone()],
            neighbors: Vec::new(),
        };
        let network = PodNetwork {
            podip: IpNet::new(v4, len).unwrap(),
            pod_hw_addr: MacAddr(mac),
            interface: "eth0".into(),
            worker_node_ip: IpNet::new(v4, len).unwrap(),
            tunnel_type: "vxlan".into(),
            routes: vec![route],
            neighbors: vec![Neighbor { ip: v6, hw_addr: MacAddr(mac), dev: "eth0".into(), state: "permanent".into() }],
            mtu,
            index: 0,
            vxlan_port: port,
            vxlan_id: vni,
            dedicated: false,
            external_net_via_pod_vm: onlink,
            interfaces: vec![Carried { vxlan_id: vni, interface }],
        };
        let text = serde_json::to_string(&network).unwrap();
        prop_assert_eq!(serde_json::from_str::<PodNetwork>(&text).unwrap(), network);
    }

    #[test]
    fn any_mac_is_read_back(mac in any::<[u8; 6]>(), text in any_text()) {
        prop_assert_eq!(MacAddr(mac).to_string().parse(), Ok(MacAddr(mac)));
        let _ = text.parse::<MacAddr>();
    }
}

#[test]
fn the_pod_never_sends_more_than_the_tunnel_carries() {
    let (four, six) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
    assert_eq!(tunnel_mtu(1500, 1500, four), 1450);
    assert_eq!(tunnel_mtu(1500, 1500, six), 1430);
    assert_eq!(tunnel_mtu(1400, 1500, four), 1400);
    assert_eq!(tunnel_mtu(1500, 9001, four), 1500);
    assert_eq!(tunnel_mtu(8951, 9001, four), 8951);
    assert_eq!(tunnel_mtu(9000, 9001, four), 8951);
    assert_eq!(tunnel_mtu(0, 1500, four), 1450);
    assert_eq!(tunnel_mtu(1500, 40, four), 0);
}
