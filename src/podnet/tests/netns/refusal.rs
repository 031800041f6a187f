//! What is refused, how it is said, and that nothing is left of the attempt.

use std::path::Path;

use peerpods_podnet::{GuestTunnel, Tunnel, TunnelError, VxlanTunnel, guest};
use peerpods_test_require::require;

use crate::bed::{Bed, NEEDS, PORT, assert_same, dump, inside, ip, on};

#[test]
fn an_interface_without_an_address_and_no_interface_are_refused() {
    if !require("an_interface_without_an_address_and_no_interface_are_refused", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    let ns = pod.netns.name.as_str();
    ip(&["-n", ns, "addr", "flush", "dev", "eth0"]);
    let none = pod.observe().unwrap_err();
    assert!(matches!(none, TunnelError::NoAddress { .. }), "{none:?}");
    assert!(none.to_string().contains("eth0") && none.to_string().contains(ns), "{none}");
    ip(&["-n", ns, "link", "del", "eth0"]);
    let empty = pod.observe().unwrap_err();
    assert!(matches!(empty, TunnelError::NoInterface { .. }), "{empty:?}");
}

#[test]
fn the_nodes_own_namespace_is_refused_as_that_of_a_pod_with_host_network() {
    if !require("the_nodes_own_namespace_is_refused", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let path = bed.worker.path();
    let error = inside(&bed.worker.0, || async { VxlanTunnel::new().observe(&path).await.unwrap_err() });
    assert!(matches!(error, TunnelError::HostNetwork { .. }), "{error:?}");
    assert!(error.to_string().contains("hostNetwork"), "{error}");
}

#[test]
fn a_missing_namespace_and_a_missing_interface_are_refused() {
    if !require("a_missing_namespace_and_a_missing_interface_are_refused", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let mut pod = bed.pod(5, 555_000);
    let gone = Path::new("/run/netns/no-such-peerpods-netns");
    inside(&bed.worker.0, || async {
        let observed = VxlanTunnel::new().observe(gone).await.unwrap_err();
        assert!(matches!(observed, TunnelError::NoNetns { .. }), "{observed:?}");
        let set = VxlanTunnel::new().setup(gone, &pod.spec).await.unwrap_err();
        assert!(matches!(set, TunnelError::NoNetns { .. }), "{set:?}");
        let file = VxlanTunnel::new().observe(Path::new("/etc/hostname")).await.unwrap_err();
        assert!(matches!(file, TunnelError::NoNetns { .. }), "{file:?}");
    });
    let network = pod.network();
    let guest = GuestTunnel { podns: gone.to_owned() };
    let error = inside(&bed.vm.0, || async { guest.setup(&network).await.unwrap_err() });
    assert!(matches!(error, TunnelError::NoNetns { .. }), "{error:?}");

    pod.spec.pod_interface = "eth7".to_owned();
    let before = dump(&pod.netns.name);
    let error = pod.setup_worker().unwrap_err();
    assert!(
        matches!(error, TunnelError::NoInterface { .. }) && error.to_string().contains("eth7"),
        "{error:?}"
    );
    assert_same(&dump(&pod.netns.name), &before, "unchanged");
}

#[test]
fn a_vni_in_use_is_said_and_leaves_both_pods_as_they_were() {
    if !require("a_vni_in_use_is_said_and_leaves_both_pods_as_they_were", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let (one, two) = (bed.pod(5, 555_000), bed.pod(6, 555_000));
    one.setup();
    let before = dump(&two.netns.name);
    let error = two.setup_worker().unwrap_err();
    assert!(matches!(error, TunnelError::VniInUse { vni: 555_000, port: PORT }), "{error:?}");
    assert_same(&dump(&two.netns.name), &before, "unchanged");
    let error = two.setup_guest().unwrap_err();
    assert!(matches!(error, TunnelError::VniInUse { vni: 555_000, port: PORT }), "{error:?}");
    assert!(one.vm_answers());
}

#[test]
fn a_device_of_another_kind_with_our_name_is_not_touched() {
    if !require("a_device_of_another_kind_with_our_name_is_not_touched", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    let ns = pod.netns.name.as_str();
    ip(&["-n", ns, "link", "add", "vxlan1", "type", "bridge"]);
    let before = dump(ns);
    let error = pod.setup_worker().unwrap_err();
    assert!(matches!(&error, TunnelError::Kernel { step, .. } if step.contains("vxlan1")), "{error:?}");
    pod.teardown_worker().unwrap();
    assert_same(&dump(ns), &before, "unchanged");
}

#[test]
fn a_guest_that_cannot_reach_the_worker_says_so() {
    if !require("a_guest_that_cannot_reach_the_worker_says_so", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    ip(&["-n", &bed.vm.0, "link", "set", "und0", "down"]);
    let error = pod.setup_guest().unwrap_err();
    assert!(matches!(error, TunnelError::Unreachable { .. }), "{error:?}");
    ip(&["-n", &bed.vm.0, "link", "set", "und0", "up"]);
    pod.setup_guest().unwrap();
    inside(&bed.vm.0, || async { guest::ensure_podns(&pod.podns.path()).await.unwrap() });
}

#[test]
fn a_vm_whose_ipv6_is_disabled_carries_a_pod_that_has_only_a_link_local_address_of_it() {
    if !require("a_vm_whose_ipv6_is_disabled_carries_a_pod", NEEDS) {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, 555_000);
    let all: Vec<_> = pod.network().carried().remove(0).interface.addresses().collect();
    assert!(all.iter().any(|net| net.addr().is_ipv6()), "{all:?}");
    on(&pod.podns.0, || std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap());
    pod.setup();
    assert!(pod.vm_answers());
    assert_eq!(ip(&["-n", &pod.podns.0, "-6", "addr", "show", "dev", "eth0"]), "");
}
