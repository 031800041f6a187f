//! The shim conformance suite against our own service: over network namespaces whole, over QEMU its two lives and a few faults; against
//! a service that is not under its control; and against one that does what it must not.
//!
//! Needs root, the guest programs and, for QEMU, an image.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use peerpods_test_require::{Need, require};
use peerpods_tests::node::{Node, Pod, built, in_private_network};

const FAKE: &[Need] = &[
    Need::Root,
    Need::NetworkNamespaces,
    Need::Program("ip"),
    Need::Program("nsenter"),
    Need::Path("/bin/busybox"),
    Need::Variable("PEERPODS_TEST_GUEST_PROGRAMS"),
];
const QEMU: &[Need] = &[
    Need::Root,
    Need::NetworkNamespaces,
    Need::Program("ip"),
    Need::Program("nsenter"),
    Need::Program("qemu-system-x86_64"),
    Need::Path("/dev/net/tun"),
    Need::Variable("PEERPODS_TEST_IMAGE"),
];

/// One run at a time: each takes both processors.
static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn conformance(arguments: &[&str]) -> Output {
    Command::new(built("peerpods-conformance")).args(arguments).output().unwrap()
}

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The summary is part of the test's output, whatever came of it.
fn summary(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{text}");
    text
}

fn assert_good(output: &Output) {
    let text = summary(output);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for model in ["go/life ", "rs/life "] {
        let line = text.lines().find(|line| line.starts_with(model)).unwrap_or_default();
        assert!(line.contains("passed"), "{model}: {line:?}");
    }
}

#[test]
fn both_shims_live_whole_lives_and_die_at_every_call_over_the_fake_provider() {
    if require("both_shims_live_whole_lives_and_die_at_every_call_over_the_fake_provider", FAKE) {
        let _one = alone();
        assert_good(&conformance(&["--extent", "turns"]));
    }
}

#[test]
fn both_shims_live_whole_lives_over_qemu() {
    if require("both_shims_live_whole_lives_over_qemu", QEMU) {
        let _one = alone();
        assert_good(&conformance(&["--provider", "qemu"]));
    }
}

/// Our own service again, but as somebody's: nothing is known of it but its socket.
#[test]
fn a_service_that_is_not_ours_is_tried_by_its_socket_alone_and_keeps_nothing() {
    if !require("a_service_that_is_not_ours_is_tried_by_its_socket_alone_and_keeps_nothing", FAKE) {
        return;
    }
    let _one = alone();
    in_private_network(|| async {
        let mut node = Node::with_guests(|_| {}).await;
        let pods = [Pod::new(201).await, Pod::new(202).await];
        let networks = pods.iter().map(|pod| pod.path.display().to_string()).collect::<Vec<_>>().join(",");
        let socket = node.socket().display().to_string();
        let output = tokio::task::spawn_blocking(move || {
            let only = ["--only", "life", "--only", "request/", "--only", "own/", "--only", "CreateSandbox"];
            conformance(&[&["--socket", &socket, "--netns", &networks, "--jobs", "2"], &only[..]].concat())
        });
        let output = output.await.unwrap();
        assert_good(&output);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line =
            |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        assert!(line("go/life ").contains("no --rootfs"), "{text}");
        for uncontrolled in ["own/three-starts-one-vm", "go/killed/CreateSandbox", "rs/restart/CreateSandbox"]
        {
            assert!(line(uncontrolled).contains("needs control of the service"), "{text}");
        }
        assert!(line("go/closed/CreateSandbox").contains("passed"), "{text}");
        node.assert_nothing_left().await;
        node.shut_down().await;
    });
}
