//! When a link ends by itself: never while a shim's connection is open, and not because somebody removed a file.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use peerpods_agentlink::{Link, ShimProcess};
use tokio::io::AsyncWriteExt;

use super::detach::{is_gone, pid_of};
use super::support::{Guest, Sandbox, eventually, healthy};

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

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_is_told_whether_the_shims_process_lives() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.links.shims(&sandbox.spec).await.unwrap(), None);
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let shims = async || sandbox.links.shims(&sandbox.spec).await.unwrap().unwrap();
    assert_eq!((shims().await.connections, shims().await.last), (0, ShimProcess::Unknown));
    let script = "import socket,sys,time\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\ns.close()\nprint(1,flush=True)\ntime.sleep(600)";
    let mut shim = Command::new("python3")
        .args(["-c", script])
        .arg(&sandbox.spec.agent_socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let becomes = async |last| {
        for _ in 0..1000 {
            if (shims().await.connections, shims().await.last) == (0, last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never {last:?}: {:?}", shims().await);
    };
    becomes(ShimProcess::Lives).await;
    shim.kill().unwrap();
    shim.wait().unwrap();
    becomes(ShimProcess::Gone).await;
}
