//! The namespaces themselves, the node's address, the VM's underlay.

use peerpods_podnet::{PodNetns, PodNetnsSpec, TunnelError, guest, pod_netns, worker_address};
use peerpods_podvm::underlay::Underlay;
use peerpods_test_require::{Need, require};

use crate::bed::{Bed, NEEDS, Ns, assert_same, dump, inside, ip, ping, run, unique};

fn spec() -> PodNetnsSpec {
    PodNetnsSpec {
        node_address: "10.244.0.1/24".parse().unwrap(),
        pod_address: "10.244.0.5/24".parse().unwrap(),
        mtu: 1400,
    }
}

#[test]
fn a_pod_namespace_is_seen_by_ip_netns_reaches_its_node_and_is_removed_whole() {
    if !require("a_pod_namespace_is_seen_by_ip_netns", NEEDS) {
        return;
    }
    let node = Ns::make("n");
    let before = dump(&node.0);
    let name = unique("a-long-name-for-a-pod");
    let pod = inside(&node.0, || async { PodNetns::create(&name, spec()).await.unwrap() });
    assert_eq!(pod.path, std::path::Path::new("/run/netns").join(&name));
    assert!(ip(&["netns"]).contains(&name));
    assert!(ping(&node.0, "10.244.0.5", &["-M", "do", "-s", "1372"]), "the node reaches the pod");
    assert!(ping(&name, "10.244.0.1", &[]), "and the pod the node");
    assert!(ip(&["-n", &name, "route"]).contains("default via 10.244.0.1"));
    assert!(ip(&["-n", &name, "link", "show", "eth0"]).contains("mtu 1400"));

    let taken = inside(&node.0, || async { PodNetns::create(&name, spec()).await.unwrap_err() });
    assert!(matches!(taken, TunnelError::Kernel { .. }), "{taken:?}");
    assert!(ping(&node.0, "10.244.0.5", &[]), "the refused one harmed nothing");

    for _ in 0..2 {
        inside(&node.0, || async { pod_netns::remove(&name).await.unwrap() });
        assert_same(&dump(&node.0), &before, "unchanged");
        assert!(!pod.path.exists());
    }
}

#[test]
fn pods_share_the_nodes_address_and_a_failed_one_leaves_nothing() {
    if !require("pods_share_the_nodes_address", NEEDS) {
        return;
    }
    let node = Ns::make("n");
    let before = dump(&node.0);
    let (one, two) = (unique("a"), unique("b"));
    let point_to_point = PodNetnsSpec {
        node_address: "10.244.0.1/32".parse().unwrap(),
        pod_address: "10.244.9.6/32".parse().unwrap(),
        mtu: 1500,
    };
    inside(&node.0, || async {
        PodNetns::create(&one, spec()).await.unwrap();
        PodNetns::create(&two, point_to_point).await.unwrap();
    });
    assert!(ping(&node.0, "10.244.0.5", &[]) && ping(&node.0, "10.244.9.6", &[]));
    assert!(ping(&one, "10.244.0.1", &[]) && ping(&two, "10.244.0.1", &[]));

    let three = unique("c");
    let bad = PodNetnsSpec { mtu: 20, ..spec() };
    let error = inside(&node.0, || async { PodNetns::create(&three, bad).await.unwrap_err() });
    assert!(matches!(error, TunnelError::Kernel { .. }), "{error:?}");
    assert!(!ip(&["netns"]).contains(&three));
    inside(&node.0, || async {
        pod_netns::remove(&one).await.unwrap();
        pod_netns::remove(&two).await.unwrap();
    });
    assert_same(&dump(&node.0), &before, "unchanged");
}

#[test]
fn podns_is_made_once_and_kept() {
    let needs = [NEEDS, &[Need::Program("nsenter"), Need::Program("umount")]].concat();
    if !require("podns_is_made_once_and_kept", &needs) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/podns");
    let vm = Ns::make("v");
    let identity = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
    inside(&vm.0, || async { guest::ensure_podns(&path).await.unwrap() });
    let (first, text) = (identity(), path.to_str().unwrap().to_owned());
    inside(&vm.0, || async { guest::ensure_podns(&path).await.unwrap() });
    assert_eq!(identity(), first, "the same namespace");
    let own = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/proc/self/ns/net").unwrap());
    assert_ne!(first, own, "and not this process's");
    let lo = run("nsenter", &[&format!("--net={text}"), "ip", "-br", "link", "show", "lo"]);
    assert!(String::from_utf8_lossy(&lo.stdout).contains("UP"), "{lo:?}");
    assert!(run("umount", &[&text]).status.success(), "mounted once");
    assert!(!run("umount", &[&text]).status.success(), "and only once");
}

#[test]
fn the_workers_address_is_that_of_the_default_route_with_the_lowest_metric() {
    if !require("the_workers_address_is_that_of_the_default_route", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let w = bed.worker.0.as_str();
    let address =
        |interface: Option<&'static str>| inside(w, move || async move { worker_address(interface).await });
    let none = address(None).unwrap_err();
    assert!(matches!(none, TunnelError::NoNodeAddress { .. }), "{none:?}");
    assert_eq!(address(Some("und0")).unwrap(), "10.200.0.1/24".parse().unwrap());

    ip(&["-n", w, "link", "add", "aaa0", "type", "veth", "peer", "name", "aaa1"]);
    ip(&["-n", w, "addr", "add", "10.201.0.1/16", "dev", "aaa0"]);
    for link in ["aaa0", "aaa1"] {
        ip(&["-n", w, "link", "set", link, "up"]);
    }
    ip(&["-n", w, "route", "add", "default", "via", "10.200.0.2", "metric", "300"]);
    ip(&["-n", w, "route", "add", "default", "via", "10.201.0.2", "metric", "100"]);
    assert_eq!(address(None).unwrap(), "10.201.0.1/16".parse().unwrap());
}

#[test]
fn the_underlay_is_set_and_set_again_without_change() {
    if !require("the_underlay_is_set_and_set_again_without_change", NEEDS) {
        return;
    }
    let (worker, vm) = (Ns::make("w"), Ns(unique("v")));
    ip(&["netns", "add", &vm.0]);
    ip(&["-n", &worker.0, "link", "add", "tap0", "type", "veth", "peer", "name", "eth0", "netns", &vm.0]);
    ip(&["-n", &worker.0, "addr", "add", "10.158.0.1/24", "dev", "tap0"]);
    ip(&["-n", &worker.0, "link", "set", "tap0", "up"]);
    let underlay: Underlay = "10.158.0.2/24,10.158.0.1,1420".parse().unwrap();
    let set = || inside(&vm.0, || async { guest::set_underlay(&underlay, None).await.unwrap() });
    assert_eq!(set(), "eth0");
    assert!(ping(&vm.0, "10.158.0.1", &["-M", "do", "-s", "1392"]), "{}", dump(&vm.0));
    assert!(ping(&vm.0, "127.0.0.1", &[]), "lo is up");
    assert!(ip(&["-n", &vm.0, "route"]).contains("default via 10.158.0.1 dev eth0"));
    let once = dump(&vm.0);
    set();
    assert_same(&dump(&vm.0), &once, "unchanged");
    let missing = inside(&vm.0, || async { guest::set_underlay(&underlay, Some("eth5")).await.unwrap_err() });
    assert!(missing.to_string().contains("eth5"), "{missing}");
}
