//! Setup repeated, setup after something was broken, teardown repeated, and what is left.

use peerpods_podnet::{Tunnel, VxlanTunnel, pod_netns};
use peerpods_test_require::require;

use crate::bed::{Bed, NEEDS, PORT, Pod, assert_same, dump, inside, ip, must, run, udp_ports};
use crate::steps::steps;

#[test]
fn setup_twice_changes_nothing_at_either_end() {
    if !require("setup_twice_changes_nothing_at_either_end", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    let seen = pod.observe().unwrap();
    pod.setup();
    let all = || [&pod.netns.name, &pod.podns.0, &bed.worker.0, &bed.vm.0].map(|ns| dump(ns)).concat();
    let once = all();
    let again = steps(&[&pod.netns.name, &pod.podns.0], || pod.setup());
    assert_eq!(again, Vec::<String>::new(), "set twice");
    assert_same(&all(), &once, "set twice");
    assert_eq!(pod.observe().unwrap(), seen, "observe answers the same before and after setup");
}

/// Breaks the worker end and sees it mended, to the last detail where nothing had to be made anew.
fn worker_mends(pod: &Pod, what: &str, break_it: impl FnOnce(&str)) {
    let ns = pod.netns.name.as_str();
    break_it(ns);
    assert!(!pod.vm_answers(), "{what}: this should have broken the path");
    assert_ne!(steps(&[ns], || pod.setup_worker().unwrap()), Vec::<String>::new(), "{what}: no step is seen");
    assert!(pod.vm_answers(), "{what}: not mended:\n{}", dump(ns));
    let mended = dump(ns);
    let again = steps(&[ns], || pod.setup_worker().unwrap());
    assert_eq!(again, Vec::<String>::new(), "{what}: mended only by half");
    assert_same(&dump(ns), &mended, &format!("{what}: mended only by half"));
}

#[test]
fn a_damaged_worker_end_is_mended() {
    if !require("a_damaged_worker_end_is_mended", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    pod.setup();
    let tc = |args: &[&str]| must("tc", args);
    worker_mends(&pod, "qdisc of eth0 gone", |ns| {
        drop(tc(&["-n", ns, "qdisc", "del", "dev", "eth0", "ingress"]))
    });
    worker_mends(&pod, "qdisc of vxlan1 gone", |ns| {
        drop(tc(&["-n", ns, "qdisc", "del", "dev", "vxlan1", "ingress"]));
    });
    worker_mends(&pod, "filter of eth0 gone", |ns| {
        drop(tc(&["-n", ns, "filter", "del", "dev", "eth0", "ingress"]))
    });
    worker_mends(&pod, "device down", |ns| drop(ip(&["-n", ns, "link", "set", "vxlan1", "down"])));
    worker_mends(&pod, "device gone", |ns| drop(ip(&["-n", ns, "link", "del", "vxlan1"])));
    worker_mends(&pod, "device of another VNI", |ns| {
        ip(&["-n", ns, "link", "del", "vxlan1"]);
        let other = "link add vxlan1 type vxlan id 7 remote 10.200.0.2 dstport 9000 nolearning";
        ip(&[&["-n", ns], other.split(' ').collect::<Vec<_>>().as_slice()].concat());
    });
    worker_mends(&pod, "device with its socket in the pod", |ns| {
        ip(&["-n", ns, "link", "del", "vxlan1"]);
        let other = "link add vxlan1 type vxlan id 555000 remote 10.200.0.2 dstport 9000 nolearning";
        ip(&[&["-n", ns], other.split(' ').collect::<Vec<_>>().as_slice()].concat());
    });
    worker_mends(&pod, "a filter to the wrong device", |ns| {
        tc(&["-n", ns, "filter", "del", "dev", "eth0", "ingress"]);
        let wrong = "filter add dev eth0 ingress pref 1 protocol all u32 match u32 0 0 action mirred egress redirect dev lo";
        tc(&[&["-n", ns], wrong.split(' ').collect::<Vec<_>>().as_slice()].concat());
    });
}

#[test]
fn a_damaged_guest_end_is_put_back_exactly() {
    if !require("a_damaged_guest_end_is_put_back_exactly", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    let ns = pod.netns.name.as_str();
    ip(&[
        "-n",
        ns,
        "neigh",
        "add",
        "10.244.0.77",
        "lladdr",
        "02:00:00:00:00:77",
        "dev",
        "eth0",
        "nud",
        "permanent",
    ]);
    pod.setup();
    let podns = pod.podns.0.as_str();
    let whole = dump(podns);
    assert!(whole.contains("02:00:00:00:00:77"), "{whole}");
    let damages = [
        "link set eth0 mtu 1300",
        "link set eth0 address 02:00:00:00:00:01",
        "addr del 10.244.0.5/24 dev eth0",
        "link set eth0 down",
        "route del default",
        "route del 10.244.0.0/24",
        "route replace default via 10.244.0.9",
        "neigh del 10.244.0.77 dev eth0",
        "neigh replace 10.244.0.77 lladdr 02:00:00:00:00:78 dev eth0 nud permanent",
    ];
    for damage in damages {
        ip(&[&["-n", podns], damage.split(' ').collect::<Vec<_>>().as_slice()].concat());
        assert_ne!(dump(podns), whole, "{damage} changed nothing");
        assert_ne!(steps(&[podns], || pod.setup_guest().unwrap()), Vec::<String>::new(), "{damage}");
        assert_same(&dump(podns), &whole, damage);
        assert_eq!(steps(&[podns], || pod.setup_guest().unwrap()), Vec::<String>::new(), "{damage}, mended");
    }
    ip(&["-n", podns, "link", "del", "eth0"]);
    pod.setup_guest().unwrap();
    assert!(pod.vm_answers(), "after the device was removed");
}

#[test]
fn teardown_leaves_nothing_and_can_be_repeated() {
    if !require("teardown_leaves_nothing_and_can_be_repeated", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    let all = || [&pod.netns.name, &pod.podns.0, &bed.worker.0, &bed.vm.0].map(|ns| dump(ns)).concat();
    let before = all();
    pod.teardown_worker().unwrap();
    pod.teardown_guest().unwrap();
    assert_same(&all(), &before, "teardown of nothing changes nothing");
    pod.setup();
    for _ in 0..2 {
        pod.teardown_worker().unwrap();
        pod.teardown_guest().unwrap();
        assert_same(&all(), &before, "after teardown");
    }
    for ns in [&bed.worker.0, &bed.vm.0] {
        assert!(!udp_ports(ns).contains(&PORT), "the UDP socket stayed in {ns}");
    }
    pod.setup();
    assert!(pod.vm_answers(), "and all of it can be laid again");
}

#[test]
fn teardown_after_partial_damage_removes_the_rest() {
    if !require("teardown_after_partial_damage_removes_the_rest", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    let ns = pod.netns.name.as_str();
    let before = dump(ns);
    for damage in [["link", "del", "vxlan1"], ["link", "del", "eth0"]] {
        pod.setup();
        ip(&[&["-n", ns], damage.as_slice()].concat());
        pod.teardown_worker().unwrap();
        if damage[2] == "vxlan1" {
            assert_same(&dump(ns), &before, "after teardown");
        }
    }
    assert!(!dump(ns).contains("vxlan"));
}

#[test]
fn a_device_left_under_its_spare_name_goes_with_teardown() {
    if !require("a_device_left_under_its_spare_name_goes_with_teardown", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    let (ns, podns) = (pod.netns.name.as_str(), pod.podns.0.as_str());
    for place in [ns, podns] {
        let device = [
            "link", "add", "ppx877f8", "type", "vxlan", "id", "555000", "dstport", "9000", "remote",
            "10.9.9.9",
        ];
        ip(&[&["-n", place], device.as_slice()].concat());
    }
    pod.teardown_worker().unwrap();
    pod.teardown_guest().unwrap();
    for place in [ns, podns] {
        assert!(!dump(place).contains("ppx877f8"), "{}", dump(place));
    }
}

#[test]
fn a_vms_own_eth0_is_not_in_the_way_of_its_pods() {
    if !require("a_vms_own_eth0_is_not_in_the_way_of_its_pods", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    ip(&["-n", &pod.vm, "link", "add", "eth0", "type", "bridge"]);
    pod.setup();
    assert!(pod.vm_answers(), "{}", dump(&pod.podns.0));
    assert!(!dump(&pod.podns.0).contains("ppx"), "the spare name is gone");
}

#[test]
fn a_foreign_filter_survives_setup_and_teardown() {
    if !require("a_foreign_filter_survives_setup_and_teardown", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    let ns = pod.netns.name.as_str();
    must("tc", &["-n", ns, "qdisc", "add", "dev", "eth0", "clsact"]);
    let rule = "filter add dev eth0 ingress pref 50 protocol all u32 match u32 0 0 flowid 1:1";
    must("tc", &[&["-n", ns], rule.split(' ').collect::<Vec<_>>().as_slice()].concat());
    let before = dump(ns);
    pod.setup();
    assert!(pod.vm_answers(), "{}", dump(ns));
    let once = dump(ns);
    assert_eq!(steps(&[ns], || pod.setup_worker().unwrap()), Vec::<String>::new(), "set twice");
    assert_same(&dump(ns), &once, "set twice");
    pod.teardown_worker().unwrap();
    assert_same(&dump(ns), &before, "after teardown");
}

#[test]
fn teardown_is_ok_when_the_namespaces_are_gone() {
    if !require("teardown_is_ok_when_the_namespaces_are_gone", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    pod.setup();
    let network = pod.network();
    inside(&bed.worker.0, || async { pod_netns::remove(&pod.netns.name).await.unwrap() });
    pod.teardown_worker().unwrap();
    // What an unmounted namespace can leave behind: a plain file.
    std::fs::write(&pod.netns.path, "").unwrap();
    pod.teardown_worker().unwrap();
    std::fs::remove_file(&pod.netns.path).unwrap();
    inside(&bed.worker.0, || async {
        let odd = std::path::Path::new("/proc/version/x");
        VxlanTunnel::new().teardown(odd, &pod.spec).await.unwrap();
    });
    assert!(run("ip", &["netns", "del", &pod.podns.0]).status.success());
    let guest = peerpods_podnet::GuestTunnel { podns: pod.podns.path() };
    inside(&bed.vm.0, || async { guest.teardown(&network).await.unwrap() });
}

#[test]
fn the_vni_is_free_again_once_the_pods_namespace_has_gone() {
    if !require("the_vni_is_free_again_once_the_pods_namespace_has_gone", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let (first, second) = (bed.pod(5, 555_000), bed.pod(6, 555_000));
    // One runtime all along, as in a daemon: what it keeps open stays open.
    let freed = inside(&bed.worker.0, || async {
        let tunnel = VxlanTunnel::new();
        tunnel.observe(&first.netns.path).await.unwrap();
        tunnel.setup(&first.netns.path, &first.spec).await.unwrap();
        pod_netns::remove(&first.netns.name).await.unwrap();
        for _ in 0..100 {
            // The kernel removes a namespace's devices in its own time.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            if tunnel.setup(&second.netns.path, &second.spec).await.is_ok() {
                return true;
            }
        }
        false
    });
    assert!(freed, "something keeps the removed namespace alive");
}
