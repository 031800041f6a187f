//! Signals to the real program, and its health endpoints while it starts, serves, drains and is gone. Needs QEMU and the image.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use peerpods_tests::daemon::{Daemon, image, with_vms};

fn until(what: &str, mut seen: impl FnMut() -> bool) {
    let began = Instant::now();
    while !seen() {
        assert!(began.elapsed() < Duration::from_secs(30), "not seen: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A sandbox whose VM boots, and the client that waits for it.
fn booting(daemon: &Daemon, id: &str, network: &str) -> std::process::Child {
    drop(daemon.succeed(&["sandbox", "create", "--id", id, "--pod-network", network]));
    let start = daemon.peerpods(&["sandbox", "start", id, "--quiet"]).stderr(Stdio::null()).spawn().unwrap();
    until("the VM is made", || peerpods_tests::node::output("ip", &["-o", "link"]).contains("ppt"));
    start
}

#[test]
fn sigterm_lets_a_vm_boot_and_health_tells_what_goes_on() {
    with_vms("sigterm_lets_a_vm_boot_and_health_tells_what_goes_on", &[], || {
        let mut daemon = Daemon::start(image());
        assert!(daemon.health("/livez").ends_with("\r\n\r\nok"), "{}", daemon.health("/livez"));
        // Ready is not usable: the provider is asked beside that.
        until("the provider answered", || daemon.health("/readyz?verbose").contains("[+]provider ok"));
        let verbose = daemon.health("/readyz?verbose");
        for check in ["[+]hypervisor-socket ok", "[+]journal ok", "[+]provider ok", "readyz check passed"] {
            assert!(verbose.contains(check), "{verbose}");
        }
        let id = daemon.id("boots");
        let mut start = booting(&daemon, &id, "10.155.7.0/24");
        daemon.signal(Signal::SIGTERM);
        until("it is not ready", || daemon.health("/readyz").contains("draining, 1 starts under way"));
        assert!(daemon.health("/livez").starts_with("HTTP/1.1 200"), "draining is no reason to be killed");
        assert!(start.wait().unwrap().success(), "{}", daemon.log());
        assert!(daemon.ended().success(), "{}", daemon.log());
        assert_eq!(daemon.health("/livez"), "");
        assert!(daemon.log().contains("draining: waiting starts=1"), "{}", daemon.log());
        daemon.boot();
        assert_eq!(daemon.succeed(&["sandbox", "exec", &id, "--", "echo", "still here"]), "still here\n");
        drop(daemon.succeed(&["sandbox", "stop", &id]));
        daemon.assert_nothing_left();
    });
}

#[test]
fn a_second_signal_ends_it_at_once_and_nothing_is_left() {
    with_vms("a_second_signal_ends_it_at_once_and_nothing_is_left", &[], || {
        let mut daemon = Daemon::start(image());
        let id = daemon.id("hurried");
        let mut start = booting(&daemon, &id, "10.155.8.0/24");
        daemon.signal(Signal::SIGTERM);
        until("it drains", || daemon.log().contains("draining: waiting"));
        daemon.signal(Signal::SIGINT);
        assert!(daemon.ended().success(), "{}", daemon.log());
        assert!(!start.wait().unwrap().success(), "the start was unwound");
        daemon.boot();
        drop(daemon.peerpods(&["sandbox", "stop", &id]).output().unwrap());
        daemon.assert_nothing_left();
    });
}
