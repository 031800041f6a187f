//! How much memory of its own a link takes: there is one for every pod. Printed with `--nocapture`; `PEERPODS_LINK_PROGRAM` names another
//! build to measure, as `make link-memory` does.

use std::fs;
use std::path::PathBuf;

use peerpods_agentlink::Link;
use peerpods_agentlink::process::LinkProcesses;
use peerpods_proto::ttrpc::agent::CopyFileRequest;
use peerpods_proto::ttrpc::agent_ttrpc::AgentServiceClient;
use peerpods_test_require::{Need, require};

use super::detach::pid_of;
use super::support::{Guest, Sandbox, healthy, program, within};

/// What a link never takes, in KiB, a debug build's neither. The aim is 2 MiB of a release build.
const GROSS: u64 = 4 << 10;

/// Private dirty and anonymous memory of the sandbox's link, in KiB.
async fn private(sandbox: &Sandbox, when: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", pid_of(sandbox).await)).unwrap();
    let field = |name: &str| -> u64 {
        let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let (dirty, anonymous) = (field("Private_Dirty:"), field("Anonymous:"));
    println!("link memory, {when}: private dirty {dirty} KiB, anonymous {anonymous} KiB");
    anonymous
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_takes_little_memory_whatever_traffic_it_had() {
    // The link lets nobody else look at its memory.
    if !require("a_link_takes_little_memory_whatever_traffic_it_had", &[Need::Root]) {
        return;
    }
    let guest = Guest::on().await;
    let agent = guest.agent().await;
    let mut sandbox = Sandbox::new();
    let measured = std::env::var_os("PEERPODS_LINK_PROGRAM").map_or_else(program, PathBuf::from);
    sandbox.links = LinkProcesses::new(measured);
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let idle = private(&sandbox, "idle").await;
    sandbox.links.connect(&sandbox.spec, &guest.target()).await.unwrap();
    let shim = sandbox.shim().await;
    healthy(&shim).await.unwrap();
    let connected = private(&sandbox, "with a shim").await;
    let client = AgentServiceClient::new(shim.clone());
    for _ in 0..64 {
        let request = CopyFileRequest { data: vec![7; 1 << 20], ..Default::default() };
        client.copy_file(within(30), &request).await.unwrap();
    }
    assert_eq!(agent.asked.copied.lock().unwrap().iter().sum::<usize>(), 64 << 20);
    let after = private(&sandbox, "after 64 MiB").await;
    let most = idle.max(connected).max(after);
    assert!(most < GROSS, "{idle}, {connected}, {after} KiB");
}
