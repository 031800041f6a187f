//! Worker and VM in network namespaces of their own, with a wire between them that can be silent.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use peerpods_agentlink::{Link, LinkError};
use peerpods_proto::ttrpc::health::CheckRequest;
use peerpods_proto::ttrpc::health_ttrpc::HealthClient;
use peerpods_test_require::{Need, require};
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::support::{Guest, Sandbox, healthy, within};

/// Two namespaces joined by a veth pair; both are gone with it.
struct Wire {
    worker: String,
    vm: String,
}

const VM_ADDRESS: &str = "192.0.2.2";

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Wire {
    fn new(test: &str) -> Self {
        let name = |side| format!("ppl-{test}-{}-{side}", std::process::id());
        let wire = Self { worker: name("w"), vm: name("v") };
        ip(&format!("netns add {}", wire.worker));
        ip(&format!("netns add {}", wire.vm));
        ip(&format!("-n {} link add wire type veth peer name wire netns {}", wire.worker, wire.vm));
        ip(&format!("-n {} address add 192.0.2.1/24 dev wire", wire.worker));
        for side in [&wire.worker, &wire.vm] {
            ip(&format!("-n {side} link set wire up"));
        }
        wire
    }

    /// Cut: nothing gets through, and no socket is told.
    fn set_cut(&self, state: &str) {
        ip(&format!("-n {} link set wire {state}", self.vm));
    }

    fn power_on(&self) {
        ip(&format!("-n {} address add {VM_ADDRESS}/24 dev wire", self.vm));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for side in [&self.worker, &self.vm] {
            let _ = Command::new("ip").args(["netns", "delete", side]).status();
        }
    }
}

/// Runs `work` on a thread of its own inside the namespace.
fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let file = std::fs::File::open(format!("/run/netns/{namespace}")).unwrap();
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        worker.join().unwrap()
    })
}

/// A socket that stays in its namespace wherever it is used.
fn listen_in(namespace: &str) -> std::net::TcpListener {
    let listener = inside(namespace, || std::net::TcpListener::bind("0.0.0.0:15150").unwrap());
    listener.set_nonblocking(true).unwrap();
    listener
}

/// The link process inherits the namespace of the thread that starts it.
fn open_in(namespace: &str, sandbox: &Sandbox) {
    inside(namespace, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(sandbox.links.open(&sandbox.spec)).unwrap();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_swallows_attempts_is_found_as_soon_as_it_is_up() {
    let needs = [Need::Root, Need::NetworkNamespaces, Need::Program("ip")];
    if !require("a_vm_that_swallows_attempts_is_found_as_soon_as_it_is_up", &needs) {
        return;
    }
    let wire = Wire::new("boot");
    let mut guest = Guest::off().await;
    guest.address = SocketAddr::new(VM_ADDRESS.parse().unwrap(), 15150);
    let _agent = guest.agent().await;
    guest.serve_on(TcpListener::from_std(listen_in(&wire.vm)).unwrap(), |_| {});
    let sandbox = Sandbox::new();
    open_in(&wire.worker, &sandbox);

    let mut hopeless = guest.target();
    hopeless.deadline = Duration::from_millis(1600);
    let error = sandbox.links.connect(&sandbox.spec, &hopeless).await.unwrap_err();
    assert!(matches!(&error, LinkError::Deadline { last, .. } if last.contains("is the VM up")), "{error}");

    // By now the kernel's own pauses between attempts would be seconds long.
    let up_after = Duration::from_secs(4);
    let target = guest.target();
    let boot = async {
        sleep(up_after).await;
        wire.power_on();
    };
    let ((), connected) = tokio::join!(boot, sandbox.links.connect(&sandbox.spec, &target));
    let connected = connected.unwrap();
    // The neighbour table asks once a second; ours must add next to nothing.
    assert!(connected.port_open_after < up_after + Duration::from_millis(1500), "{connected:?}");
    healthy(&sandbox.shim().await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wire_that_is_cut_and_mended_carries_on_where_it_was() {
    let needs = [Need::Root, Need::NetworkNamespaces, Need::Program("ip")];
    if !require("a_wire_that_is_cut_and_mended_carries_on_where_it_was", &needs) {
        return;
    }
    let wire = Wire::new("cut");
    wire.power_on();
    let mut guest = Guest::off().await;
    guest.address = SocketAddr::new(VM_ADDRESS.parse().unwrap(), 15150);
    let agent = guest.agent().await;
    guest.serve_on(TcpListener::from_std(listen_in(&wire.vm)).unwrap(), |_| {});
    let sandbox = Sandbox::new();
    open_in(&wire.worker, &sandbox);
    sandbox.links.connect(&sandbox.spec, &guest.target()).await.unwrap();
    let shim = sandbox.shim().await;
    healthy(&shim).await.unwrap();
    for cut_for in [1, 7, 16].map(Duration::from_secs) {
        wire.set_cut("down");
        let asked = HealthClient::new(shim.clone());
        let asked = tokio::spawn(async move { asked.check(within(60), &CheckRequest::new()).await });
        sleep(cut_for).await;
        wire.set_cut("up");
        let mended = Instant::now();
        asked.await.unwrap().unwrap();
        println!("cut for {cut_for:?}: traffic resumed {:?} after the network", mended.elapsed());
        assert!(mended.elapsed() < Duration::from_secs(10), "it took {:?}", mended.elapsed());
    }
    assert_eq!(agent.asked.connections.load(Ordering::SeqCst), 2, "the agent noticed");
}
