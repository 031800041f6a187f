//! When a link ends by itself: never while a shim's connection is open, and not because somebody removed a file.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use peerpods_agentlink::process::LinkProcesses;
use peerpods_agentlink::{Link, LinkSpec, ShimProcess};
use peerpods_test_require::{Need, require};
use tokio::io::AsyncWriteExt;

use super::detach::{is_gone, pid_of};
use super::support::{Guest, Sandbox, eventually, healthy, program};

/// Longer than the link takes between two looks at its directory.
const TWO_LOOKS: Duration = Duration::from_millis(2500);

#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_directory_vanished_ends_by_itself() {
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let pid = pid_of(&sandbox).await;
    fs::remove_dir_all(&sandbox.dir).unwrap();
    eventually("the link is gone", || is_gone(pid)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_directory_was_replaced_ends_and_its_successor_stays() {
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let old = pid_of(&sandbox).await;
    fs::remove_dir_all(&sandbox.dir).unwrap();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    eventually("the old link is gone", || is_gone(old)).await;
    assert_ne!(pid_of(&sandbox).await, old);
    sandbox.raw_shim().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_somebody_removed_ends_no_link() {
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let pid = pid_of(&sandbox).await;
    fs::remove_file(sandbox.dir.join("link.log")).unwrap();
    tokio::time::sleep(TWO_LOOKS).await;
    assert_eq!(pid_of(&sandbox).await, pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_somebody_removed_end_no_link() {
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let pid = pid_of(&sandbox).await;
    fs::remove_file(&sandbox.spec.agent_socket).unwrap();
    fs::remove_file(sandbox.dir.join("link.sock")).unwrap();
    tokio::time::sleep(TWO_LOOKS).await;
    assert!(!is_gone(pid));
    fs::remove_dir_all(&sandbox.dir).unwrap();
    eventually("the link is gone", || is_gone(pid)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_directory_vanished_serves_its_connections_to_their_end() {
    let guest = Guest::on().await;
    let _agent = guest.agent().await;
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let pid = pid_of(&sandbox).await;
    sandbox.links.connect(&sandbox.spec, &guest.target()).await.unwrap();
    let shim = sandbox.shim().await;
    healthy(&shim).await.unwrap();
    fs::remove_dir_all(&sandbox.dir).unwrap();
    tokio::time::sleep(TWO_LOOKS).await;
    healthy(&shim).await.unwrap();
    drop(shim);
    eventually("the link is gone", || is_gone(pid)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_stays_when_its_shim_is_gone_because_the_daemon_decides() {
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let pid = pid_of(&sandbox).await;
    let mut shim = sandbox.raw_shim().await;
    shim.write_all(b"x").await.unwrap();
    drop(shim);
    tokio::time::sleep(TWO_LOOKS).await;
    assert!(!is_gone(pid));
}

/// Waits until no shim is connected and the link says this of their processes.
async fn told(sandbox: &Sandbox, expected: ShimProcess) {
    for _ in 0..1000 {
        let shims = sandbox.links.shims(&sandbox.spec).await.unwrap().unwrap();
        if (shims.connections, shims.last) == (0, expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never {expected:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_is_told_whether_the_shims_process_lives() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.links.shims(&sandbox.spec).await.unwrap(), None);
    sandbox.links.open(&sandbox.spec).await.unwrap();
    told(&sandbox, ShimProcess::Unknown).await;
    drop(sandbox.raw_shim().await);
    told(&sandbox, ShimProcess::Lives).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_is_told_that_the_shims_process_is_gone() {
    if !require("the_daemon_is_told_that_the_shims_process_is_gone", &[Need::Program("nc")]) {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let mut shim =
        Command::new("nc").arg("-U").arg(&sandbox.spec.agent_socket).stdin(Stdio::piped()).spawn().unwrap();
    for _ in 0..1000 {
        if sandbox.links.shims(&sandbox.spec).await.unwrap().unwrap().connections == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shim.kill().unwrap();
    shim.wait().unwrap();
    told(&sandbox, ShimProcess::Gone).await;
}

/// Where the test below, started again in a pid namespace of its own, finds the sandbox.
const SANDBOX_OF_ANOTHER: &str = "PEERPODS_TEST_SANDBOX_OF_ANOTHER_PID_NAMESPACE";

#[tokio::test(flavor = "multi_thread")]
async fn a_link_outside_the_daemons_pid_namespace_is_closed_and_not_forgotten() {
    const NAME: &str = "ends::a_link_outside_the_daemons_pid_namespace_is_closed_and_not_forgotten";
    if let Some(socket) = std::env::var_os(SANDBOX_OF_ANOTHER) {
        let spec = LinkSpec { sandbox: "s1".parse().unwrap(), agent_socket: socket.into() };
        return LinkProcesses::new(program()).close(&spec).await.unwrap();
    }
    if !require(NAME, &[Need::Root, Need::Program("unshare")]) {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let pid = pid_of(&sandbox).await;
    let inside = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env(SANDBOX_OF_ANOTHER, &sandbox.spec.agent_socket)
        .output()
        .unwrap();
    assert!(inside.status.success(), "{}", String::from_utf8_lossy(&inside.stdout));
    eventually("the link is gone", || is_gone(pid)).await;
    assert!(!sandbox.dir.exists());
}
