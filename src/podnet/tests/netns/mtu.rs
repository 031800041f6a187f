//! The probe: a path that carries less than a pod was promised is found, whichever way, and named.

use std::time::{Duration, Instant};

use peerpods_podnet::probe::{GuestKind, Way};
use peerpods_podnet::{GuestTunnel, Probe, Tunnel, TunnelError, VxlanTunnel};
use peerpods_test_require::require;
use tokio::sync::oneshot;

use crate::bed::{NEEDS, inside, ip};
use crate::matrix::Laid;
use crate::shapes::ALL;

/// Verifies the path as a start does, with a guest that is up at once and announces itself a little later when it is ours. Tells how long
/// that took the worker.
fn timed(laid: &Laid, kind: GuestKind) -> (Result<(), TunnelError>, Duration) {
    let guest = GuestTunnel { podns: laid.podns.path() };
    let path = laid.pod.path();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            inside(&laid.worker.0, || async {
                let (up, guest_up) = oneshot::channel();
                let primary = &laid.network.carried()[0].interface;
                let probe = Probe {
                    local: laid.network.worker_node_ip.addr(),
                    pod: primary.address.addr(),
                    mac: primary.mac,
                    mtu: primary.mtu,
                    guest: kind,
                    guest_up,
                };
                up.send(()).unwrap();
                let began = Instant::now();
                (VxlanTunnel::new().verify(&path, &laid.specs[0], probe).await, began.elapsed())
            })
        });
        if kind == GuestKind::Ours {
            scope.spawn(|| inside(&laid.vm.0, || async { drop(guest.announce(&laid.network).await) }));
        }
        worker.join().unwrap()
    })
}

fn verified(laid: &Laid, kind: GuestKind) -> Result<(), TunnelError> {
    timed(laid, kind).0
}

fn shape(name: &str) -> Laid {
    let laid = Laid::bare(ALL.iter().find(|shape| shape.name.starts_with(name)).unwrap());
    laid.lay();
    laid
}

#[test]
fn a_path_that_carries_full_packets_is_verified_both_ways_over_ipv4_and_ipv6() {
    if !require("a_path_that_carries_full_packets_is_verified", NEEDS) {
        return;
    }
    for name in ["Flannel", "IPv6 only", "AWS", "dual stack on an IPv6"] {
        let laid = shape(name);
        verified(&laid, GuestKind::Ours).unwrap_or_else(|e| panic!("{name}: {e}"));
        verified(&laid, GuestKind::Unknown).unwrap_or_else(|e| panic!("{name}, with a stock guest: {e}"));
    }
}

#[test]
fn a_path_that_carries_less_is_an_error_with_both_sizes_whichever_way_it_is() {
    if !require("a_path_that_carries_less_is_an_error_with_both_sizes", NEEDS) {
        return;
    }
    let laid = shape("AWS");
    let small = |mtu: &str| {
        // What arrives is cut off at the receiving end, in silence, as by a network that drops ICMP.
        drop(ip(&["-n", &laid.vm.0, "link", "set", "und0", "mtu", mtu]));
    };
    small("1500");
    let error = verified(&laid, GuestKind::Ours).unwrap_err();
    let TunnelError::PathMtu(found) = &error else { panic!("{error:?}") };
    assert_eq!((found.way, found.promised, found.carried), (Way::ToVm, 8951, Some(1500)), "{error}");
    let text = error.to_string();
    assert!(text.contains("9001") && text.contains("it carries 1500"), "{text}");

    small("9001");
    drop(ip(&["-n", &laid.worker.0, "link", "set", "und0", "mtu", "1500"]));
    let (verified, took) = timed(&laid, GuestKind::Ours);
    let error = verified.unwrap_err();
    let TunnelError::PathMtu(found) = &error else { panic!("{error:?}") };
    assert_eq!((found.way, found.carried), (Way::ToVm, Some(1500)), "{error}");
    assert!(took < Duration::from_secs(4), "the node's own interface is known at once");
}

#[test]
fn a_guest_whose_own_interface_is_smaller_is_found_by_what_it_announces() {
    if !require("a_guest_whose_own_interface_is_smaller_is_found", NEEDS) {
        return;
    }
    let laid = shape("AWS");
    // Receives 9001, sends 1500.
    let route = ["-n", &laid.vm.0, "route", "replace", "10.200.0.0/24", "dev", "und0", "mtu", "lock", "1500"];
    drop(ip(&route));
    let error = verified(&laid, GuestKind::Ours).unwrap_err();
    let TunnelError::PathMtu(found) = &error else { panic!("{error:?}") };
    assert_eq!((found.way, found.promised, found.carried), (Way::FromVm, 8951, Some(1500)), "{error}");
}

#[test]
fn a_tunnel_whose_port_is_closed_is_named() {
    if !require("a_tunnel_whose_port_is_closed_is_named", NEEDS) {
        return;
    }
    let laid = shape("Flannel");
    drop(ip(&["-n", &laid.podns.0, "link", "del", "eth0"]));
    let error = verified(&laid, GuestKind::Unknown).unwrap_err();
    assert!(matches!(error, TunnelError::Silent { port: 9000, .. }), "{error:?}");
    assert!(
        error.to_string().contains("UDP port 9000") && error.to_string().contains("10.200.0.2"),
        "{error}"
    );
}
