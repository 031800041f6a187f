//! The shim conformance suite against our own service: over network namespaces whole, over QEMU its two lives and a few faults; against
//! a service that is not under its control; and against one that does what it must not.
//!
//! Needs root, the guest programs and, for QEMU, an image.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use peerpods_proto::ttrpc::hypervisor::{
    CreateVMRequest, CreateVMResponse, StartVMRequest, StartVMResponse, StopVMRequest, StopVMResponse,
    VersionRequest, VersionResponse,
};
use peerpods_proto::ttrpc::hypervisor_ttrpc::{Hypervisor, create_hypervisor};
use peerpods_test_require::{Need, require};
use peerpods_tests::node::{Node, Pod, built, in_private_network};
use ttrpc::asynchronous::{Server, TtrpcContext};

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
static ONE: Mutex<()> = Mutex::new(());

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

/// A service with what is wrong with upstream's: StopVM of the unknown is an error, and takes as long as a deletion; a second CreateVM
/// is an error; and the agent socket's path is one that a shim's URL is cut in.
struct Upstream(Mutex<HashSet<String>>);

#[async_trait]
impl Hypervisor for Upstream {
    async fn create_vm(&self, _: &TtrpcContext, request: CreateVMRequest) -> ttrpc::Result<CreateVMResponse> {
        let named = |key: &str| request.annotations.get(key).is_some_and(|name| !name.is_empty());
        let both = ["io.kubernetes.cri.sandbox-name", "io.kubernetes.cri.sandbox-namespace"];
        if request.id.is_empty() || !both.into_iter().all(named) || !self.0.lock().unwrap().insert(request.id)
        {
            return Err(unknown("cannot create"));
        }
        let mut answer = CreateVMResponse::new();
        answer.agentSocketPath = "/run/peerpod/pods/a:b/agent.ttrpc".to_owned();
        Ok(answer)
    }

    async fn start_vm(&self, _: &TtrpcContext, request: StartVMRequest) -> ttrpc::Result<StartVMResponse> {
        let known = self.0.lock().unwrap().contains(&request.id);
        known.then(StartVMResponse::new).ok_or_else(|| unknown("does not exist"))
    }

    async fn stop_vm(&self, _: &TtrpcContext, request: StopVMRequest) -> ttrpc::Result<StopVMResponse> {
        if !self.0.lock().unwrap().remove(&request.id) {
            return Err(unknown("does not exist"));
        }
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        Ok(StopVMResponse::new())
    }

    async fn version(&self, _: &TtrpcContext, _: VersionRequest) -> ttrpc::Result<VersionResponse> {
        Ok(VersionResponse { version: "0.0.0".to_owned(), ..Default::default() })
    }
}

/// Go's plain errors.
fn unknown(text: &str) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(ttrpc::get_status(ttrpc::Code::UNKNOWN, text))
}

#[test]
fn a_service_that_does_what_it_must_not_fails_and_is_told_which_rule() {
    if !require("a_service_that_does_what_it_must_not_fails_and_is_told_which_rule", FAKE) {
        return;
    }
    let _one = alone();
    in_private_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("h.sock");
        let service = create_hypervisor(Arc::new(Upstream(Mutex::default())));
        let address = format!("unix://{}", socket.display());
        let mut server = Server::new().bind(&address).unwrap().register_service(service);
        server.start().await.unwrap();
        let pod = Pod::new(203).await;
        let (socket, netns) = (socket.display().to_string(), pod.path.display().to_string());
        let output = tokio::task::spawn_blocking(move || {
            let names = ["/life", "version", "unknown", "never-started", "create-empty-id", "create-twice"];
            let only = names.iter().flat_map(|name| ["--only", name]).collect::<Vec<_>>();
            conformance(&[&["--socket", &socket, "--netns", &netns, "--output", "json"], &only[..]].concat())
        });
        let output = output.await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let of = |name: &str| report["cases"].as_array().unwrap().iter().find(|c| c["name"] == name).unwrap();
        for name in ["request/version", "request/start-unknown", "request/create-empty-id"] {
            assert_eq!(of(name)["outcome"], "passed", "{report:#}");
        }
        for (name, rule) in [
            ("go/life", "agentSocketPath"),
            ("rs/life", "agentSocketPath"),
            ("go/stop-unknown", "facts/kata.md R4"),
            ("rs/stop-unknown-twice", "facts/kata.md R4"),
            ("rs/stop-never-started-twice", "facts/kata.md R4"),
            ("request/create-twice", "facts/kata.md R2"),
        ] {
            assert_eq!(of(name)["outcome"], "failed", "{name}: {report:#}");
            assert!(of(name)["rule"].as_str().unwrap().contains(rule), "{name}: {report:#}");
        }
        server.shutdown().await.unwrap();
    });
}
