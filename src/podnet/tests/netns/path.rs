//! Packets through the whole path.

use peerpods_podnet::PodNetnsSpec;
use peerpods_podvm::network::RouteScope;
use peerpods_test_require::require;

use crate::bed::{Bed, NEEDS, NODE_IP, PORT, Pod, assert_same, counter, dump, ip, ping, udp_ports};
use crate::steps::steps;
use crate::traffic::tcp_echo;

fn fragments_made(netns: &str) -> u64 {
    counter(netns, "Ip:", "FragCreates")
}

#[test]
fn the_pods_address_is_answered_by_the_vm_and_no_longer_by_the_pods_namespace() {
    if !require("the_pods_address_is_answered_by_the_vm", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    assert!(pod.answers(), "the bare namespace answers for itself");

    pod.setup_worker().unwrap();
    assert!(!pod.answers(), "with the worker end alone nobody may answer");

    pod.setup_guest().unwrap();
    let own = counter(&pod.netns.name, "Icmp:", "InEchos");
    assert!(pod.vm_answers());
    assert_eq!(counter(&pod.netns.name, "Icmp:", "InEchos"), own, "the pod's namespace answered as well");
    assert!(ping(&pod.podns.0, NODE_IP, &[]), "the pod reaches the node");

    pod.teardown_guest().unwrap();
    assert!(!pod.answers(), "without the guest end nobody may answer");
    pod.teardown_worker().unwrap();
    assert!(pod.answers(), "after teardown the namespace has its own network back");
}

#[test]
fn tcp_carries_the_same_bytes_both_ways() {
    if !require("tcp_carries_the_same_bytes_both_ways", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    pod.setup();
    tcp_echo(&bed.worker.0, &pod.podns.0, "10.244.0.5", 4 << 20);
    tcp_echo(&pod.podns.0, &bed.worker.0, NODE_IP, 4 << 20);
}

#[test]
fn the_guests_mtu_fills_the_underlay_exactly() {
    if !require("the_guests_mtu_fills_the_underlay_exactly", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    pod.setup();
    // 1450 = 1500 of the underlay - 50; ICMP and IP headers take 28.
    let before = fragments_made(&bed.vm.0);
    assert!(ping(&pod.podns.0, NODE_IP, &["-M", "do", "-s", "1422"]), "a full packet passes");
    assert_eq!(fragments_made(&bed.vm.0), before, "the underlay must not fragment a full packet");
    assert!(!ping(&pod.podns.0, NODE_IP, &["-M", "do", "-s", "1423"]), "one byte more does not");
}

#[test]
fn with_a_jumbo_underlay_the_pod_keeps_its_own_mtu() {
    if !require("with_a_jumbo_underlay_the_pod_keeps_its_own_mtu", NEEDS) {
        return;
    }
    let bed = Bed::new();
    for ns in [&bed.worker.0, &bed.vm.0] {
        ip(&["-n", ns, "link", "set", "und0", "mtu", "9000"]);
    }
    let jumbo = PodNetnsSpec {
        node_address: "10.244.0.1/24".parse().unwrap(),
        pod_address: "10.244.0.5/24".parse().unwrap(),
        mtu: 8950,
    };
    let pod = bed.pod_with(jumbo, 555_000);
    pod.setup();
    let full = ["-M", "do", "-s", "8922"];
    assert!(ping(&pod.podns.0, NODE_IP, &full), "from the pod");
    assert!(ping(&bed.worker.0, "10.244.0.5", &full), "and to it");
    assert_eq!(fragments_made(&bed.vm.0) + fragments_made(&bed.worker.0), 0);
}

#[test]
fn the_udp_socket_is_the_workers_and_not_the_pods() {
    if !require("the_udp_socket_is_the_workers_and_not_the_pods", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    pod.setup();
    assert!(udp_ports(&bed.worker.0).contains(&PORT));
    assert!(udp_ports(&bed.vm.0).contains(&PORT));
    assert!(!udp_ports(&pod.netns.name).contains(&PORT));
    assert!(!udp_ports(&pod.podns.0).contains(&PORT));
    let links = dump(&bed.worker.0);
    assert!(!links.contains("vxlan"), "the device is never seen on the worker: {links}");
}

#[test]
fn two_pods_with_their_own_vnis_work_side_by_side() {
    if !require("two_pods_with_their_own_vnis_work_side_by_side", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let (one, two) = (bed.pod(5, 555_000), bed.pod(6, 555_001));
    one.setup();
    two.setup();
    tcp_echo(&bed.worker.0, &one.podns.0, "10.244.0.5", 100_000);
    tcp_echo(&bed.worker.0, &two.podns.0, "10.244.0.6", 100_000);

    one.teardown_worker().unwrap();
    one.teardown_guest().unwrap();
    assert!(two.vm_answers(), "one pod's end leaves the other alone");
}

/// As Calico does it: a /32, a gateway no address covers, its MAC known beforehand.
fn calico(bed: &Bed) -> Pod {
    let spec = PodNetnsSpec {
        node_address: "10.244.0.1/32".parse().unwrap(),
        pod_address: "10.244.7.5/32".parse().unwrap(),
        mtu: 1500,
    };
    let pod = bed.pod_with(spec, 555_000);
    let (ns, outside) = (pod.netns.name.as_str(), pod.netns.node_interface.as_str());
    let shown = ip(&["-n", &bed.worker.0, "-j", "link", "show", "dev", outside]);
    let mac = shown.split("\"address\":\"").nth(1).unwrap().split('"').next().unwrap();
    ip(&["-n", ns, "route", "flush", "dev", "eth0"]);
    ip(&["-n", ns, "neigh", "add", "169.254.1.1", "lladdr", mac, "dev", "eth0", "nud", "permanent"]);
    ip(&["-n", ns, "route", "add", "default", "via", "169.254.1.1", "dev", "eth0", "onlink"]);
    pod
}

#[test]
fn a_point_to_point_pod_with_an_onlink_gateway_and_a_permanent_neighbour_is_carried() {
    if !require("a_point_to_point_pod_is_carried", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = calico(&bed);
    let seen = pod.observe().unwrap();
    assert_eq!(seen.address, "10.244.7.5/32".parse().unwrap());
    let v4: Vec<_> = seen.routes.iter().filter(|r| r.dst.addr().is_ipv4()).collect();
    let [default] = v4.as_slice() else { panic!("{:?}", seen.routes) };
    assert!(default.onlink && default.gw == "169.254.1.1".parse().ok(), "{default:?}");
    assert_eq!(default.scope, RouteScope::Universe);
    assert_eq!(seen.neighbors.len(), 1, "{:?}", seen.neighbors);

    pod.setup();
    assert!(pod.vm_answers());
    assert!(ping(&pod.podns.0, "10.244.0.1", &[]), "by the gateway that only the neighbour entry knows");
    let once = dump(&pod.podns.0);
    assert_eq!(steps(&[&pod.podns.0], || pod.setup_guest().unwrap()), Vec::<String>::new(), "set twice");
    assert_same(&dump(&pod.podns.0), &once, "set twice");
}

#[test]
fn the_guest_has_the_pods_own_routes_and_no_connected_route_that_was_not_listed() {
    if !require("the_guest_has_the_pods_own_routes", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    let ns = pod.netns.name.as_str();
    let routes = |ns: &str| ip(&["-n", ns, "route", "show"]).split_whitespace().collect::<Vec<_>>().join(" ");
    pod.setup();
    assert_eq!(routes(&pod.podns.0), routes(ns), "the same, source address and protocol included");

    // As the point-to-point plugin with a wide prefix leaves it.
    ip(&["-n", ns, "route", "del", "10.244.0.0/24", "dev", "eth0"]);
    ip(&["-n", ns, "route", "replace", NODE_IP, "dev", "eth0", "scope", "link"]);
    ip(&["-n", ns, "route", "replace", "default", "via", NODE_IP, "dev", "eth0"]);
    ip(&["-n", ns, "route", "replace", "10.244.0.0/24", "via", NODE_IP, "dev", "eth0"]);
    pod.setup_guest().unwrap();
    assert_eq!(routes(&pod.podns.0), routes(ns));
    assert!(pod.vm_answers());
}
