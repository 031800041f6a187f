//! `kill -9` of the node service, again and again: no container restarts, no stream has a gap or a repetition, no sandbox has two VMs, and
//! nothing is left. `make kill-test` runs it at full size, `make test` a few kills. Needs root, the guest programs, and for the second
//! test QEMU and the image. Asserts on no time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::BufReader;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peerpods_test_require::{Need, require};
use peerpods_tests::daemon::{Daemon, image};
use peerpods_tests::kill::churn::{Churn, FIRST_NETWORK};
use peerpods_tests::kill::counter::{self, Counter, Lines};
use peerpods_tests::kill::node::KilledNode;
use peerpods_tests::kill::{Dice, Moment, Plan, Readiness};
use peerpods_tests::node::{Pod, eventually, in_private_network, on_private_network};
use peerpods_tests::shim::admin_get;

/// One test at a time: both want the whole machine.
static ONE: Mutex<()> = Mutex::new(());

/// Sandboxes that are started at once.
const AT_ONCE: usize = 8;
/// Sandboxes that come and go beside those that stay.
const LANES: u8 = 3;

struct Main {
    id: String,
    _pod: Pod,
    counter: Counter,
}

fn name(n: u8) -> String {
    format!("main-{n}")
}

async fn start_one(node: &KilledNode, n: u8, pause: &str) -> Main {
    let (pod, shim, id) = (Pod::new(n).await, node.shim(), name(n));
    let socket = shim.create(&id, &pod.path).await.unwrap();
    shim.start(&id).await.unwrap();
    let counter = Counter::start(&id, &socket, &node.userland(), pause).await;
    Main { id, _pod: pod, counter }
}

async fn start_all(node: &KilledNode, count: u8, pause: &str) -> Vec<Main> {
    let mut mains = Vec::new();
    let numbers: Vec<u8> = (0..count).collect();
    for some in numbers.chunks(AT_ONCE) {
        mains.extend(futures::future::join_all(some.iter().map(|n| start_one(node, *n, pause))).await);
    }
    mains
}

fn assert_no_fault(node: &mut KilledNode, mains: &[Main], when: &str) {
    let faults: Vec<String> =
        mains.iter().filter_map(|m| Some(format!("{}: {}", m.id, m.counter.fault()?))).collect();
    if !faults.is_empty() {
        node.keep();
        panic!("{when}: {faults:#?}\n{}", node.log());
    }
}

/// Kills and restarts the service as often as planned; answers how many kills came before it was ready.
async fn kill_often(node: &mut KilledNode, mains: &[Main], plan: Plan, readiness: &mut Readiness) -> u32 {
    let (mut dice, mut early) = (Dice::new(plan.seed), 0);
    for kill in 1..=plan.kills {
        let moment = dice.moment();
        match moment {
            Moment::WhileItStarts(after) => {
                early += 1;
                tokio::time::sleep(after).await;
            }
            Moment::WhileItServes(after) => {
                readiness.note(node.ready().await);
                tokio::time::sleep(after).await;
            }
        }
        node.kill_9();
        drop(node.vms());
        assert_no_fault(node, mains, &format!("kill {kill} ({moment:?}), seed {}", plan.seed));
        node.boot();
    }
    readiness.note(node.ready().await);
    early
}

async fn assert_untouched(
    node: &mut KilledNode,
    mains: &[Main],
    vms: &std::collections::BTreeMap<String, String>,
) {
    for main in mains {
        if let Err(fault) = main.counter.goes_on(2).await {
            node.keep();
            panic!("{}: {fault}\n{}", main.id, node.log());
        }
        let told = admin_get(&node.socket(), &main.id).await.unwrap();
        assert_eq!((told.state.as_str(), told.vm_id.as_str()), ("running", vms[&main.id].as_str()));
    }
    let mut now = node.vms();
    now.retain(|sandbox, _| vms.contains_key(sandbox));
    assert_eq!(&now, vms, "each sandbox has the VM it had");
}

async fn stop_all(node: &mut KilledNode, mains: Vec<Main>) {
    let shim = node.shim();
    let stops = mains.iter().map(|main| shim.stop(&main.id));
    assert!(futures::future::join_all(stops).await.into_iter().all(|stopped| stopped.is_ok()));
    eventually("everything is removed", || async {
        node.cloud.leftovers().is_empty() && node.recorded() == 0
    })
    .await;
    let (status, _) = node.terminate().await;
    assert!(status.success(), "{status}:\n{}", node.log());
    eventually("nothing is left", || async { node.leftovers().is_empty() }).await;
}

#[test]
fn kill_9_of_the_service_is_not_noticed_by_any_pod() {
    let needs = &[
        Need::Root,
        Need::NetworkNamespaces,
        Need::Program("ip"),
        Need::Path("/bin/busybox"),
        Need::Variable("PEERPODS_TEST_GUEST_PROGRAMS"),
    ];
    if !require("kill_9_of_the_service_is_not_noticed_by_any_pod", needs) {
        return;
    }
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    in_private_network(|| async {
        let plan = Plan::from_environment();
        eprintln!("kill-test: KILLS={} SANDBOXES={} SEED={}", plan.kills, plan.sandboxes, plan.seed);
        assert!((1..FIRST_NETWORK).contains(&plan.sandboxes), "SANDBOXES is from 1 to {}", FIRST_NETWORK - 1);
        // Each number is a process in each VM, and all share this machine.
        let pause = if plan.sandboxes > 10 { "0.5" } else { "0.1" };
        let mut node = KilledNode::new().await;
        node.boot();
        node.ready().await;
        let mains = start_all(&node, plan.sandboxes, pause).await;
        let vms = node.vms();
        let mut churn = Churn::start(&node.shim(), plan.seed, LANES);
        let (began, mut readiness) = (Instant::now(), Readiness::default());
        let early = kill_often(&mut node, &mains, plan, &mut readiness).await;
        let took = began.elapsed();
        churn.stop().await;
        assert_untouched(&mut node, &mains, &vms).await;
        let lines: u64 = mains.iter().map(|m| m.counter.count()).sum();
        let least = mains.iter().map(|m| m.counter.count()).min().unwrap_or(0);
        let count = mains.len();
        stop_all(&mut node, mains).await;
        let [begun, ran, cut] = [&churn.tally.begun, &churn.tally.ran, &churn.tally.cut_short]
            .map(|number| number.load(Ordering::SeqCst));
        eprintln!(
            "kill-test: {} kills in {took:.0?} ({early} while it started), {readiness}; {lines} numbers in {count} streams \
             (at least {least} each), no gap, no repetition; {begun} sandboxes beside them ({cut} cut short, {ran} not); seed {}",
            plan.kills, plan.seed
        );
    });
}

#[test]
fn kill_9_of_the_real_service_is_not_noticed_by_a_real_vm() {
    let needs = &[
        Need::Root,
        Need::NetworkNamespaces,
        Need::Program("ip"),
        Need::Program("qemu-system-x86_64"),
        Need::Path("/dev/net/tun"),
        Need::Variable("PEERPODS_TEST_IMAGE"),
    ];
    if !require("kill_9_of_the_real_service_is_not_noticed_by_a_real_vm", needs) {
        return;
    }
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    on_private_network(|| {
        let plan = Plan::from_environment();
        eprintln!("kill-test: QEMU_KILLS={} SEED={}", plan.qemu_kills, plan.seed);
        let mut daemon = Daemon::start(image());
        let id = daemon.id("count");
        drop(daemon.succeed(&["sandbox", "create", "--id", &id, "--pod-network", "10.155.6.0/24"]));
        drop(daemon.succeed(&["sandbox", "start", &id, "--quiet"]));
        let boot_id = || ["sandbox", "exec", &id, "--", "cat", "/proc/sys/kernel/random/boot_id"];
        let booted = daemon.succeed(&boot_id());
        let qemu = qemu_pid();
        let script = counter::script("0.1");
        let mut exec = daemon
            .peerpods(&["sandbox", "exec", &id, "--no-stdin", "--", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let seen = Arc::new(Mutex::new(Ok(0)));
        let reader = std::thread::spawn({
            let (out, seen) = (exec.stdout.take().unwrap(), seen.clone());
            move || judge(BufReader::new(out), &seen)
        });
        let (mut dice, mut readiness) = (Dice::new(plan.seed), Readiness::default());
        let began = Instant::now();
        for kill in 1..=plan.qemu_kills {
            std::thread::sleep(dice.millis(1_500));
            daemon.kill_9();
            std::thread::sleep(dice.millis(300));
            readiness.note(daemon.boot_until_ready());
            let so_far = seen.lock().unwrap().clone();
            assert!(so_far.is_ok(), "kill {kill}, seed {}: {so_far:?}\n{}", plan.seed, daemon.log());
        }
        let took = began.elapsed();
        goes_on(&seen, 5);
        assert_eq!((daemon.succeed(&boot_id()), qemu_pid()), (booted, qemu), "the VM is another");
        let numbers = seen.lock().unwrap().clone().unwrap();
        drop(daemon.succeed(&["sandbox", "stop", &id]));
        exec.wait().unwrap();
        reader.join().unwrap();
        daemon.assert_nothing_left();
        eprintln!(
            "kill-test: {} kills in {took:.0?} under a QEMU VM, {readiness}; {numbers} numbers, no gap, no repetition; seed {}",
            plan.qemu_kills, plan.seed
        );
    });
}

fn qemu_pid() -> Vec<String> {
    let found = peerpods_tests::node::processes_naming("qemu-system-x86_64 ");
    // Only those in this test's network are its own.
    let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let pid = |line: &String| line.trim_start_matches("process ").split(':').next().unwrap().to_owned();
    found
        .iter()
        .map(pid)
        .filter(|pid| std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|n| n == own))
        .collect()
}

fn judge(mut out: impl std::io::BufRead, seen: &Mutex<Result<u64, String>>) {
    let mut lines = Lines::default();
    loop {
        let piece = out.fill_buf().unwrap_or_default().to_owned();
        if piece.is_empty() {
            return;
        }
        out.consume(piece.len());
        let judged = lines.take(&piece);
        let broken = judged.is_err();
        *seen.lock().unwrap() = judged;
        if broken {
            return;
        }
    }
}

fn goes_on(seen: &Mutex<Result<u64, String>>, more: u64) {
    let target = seen.lock().unwrap().clone().unwrap() + more;
    let began = Instant::now();
    while seen.lock().unwrap().clone().unwrap() < target {
        assert!(began.elapsed() < Duration::from_secs(60), "the stream stands still");
        std::thread::sleep(Duration::from_millis(50));
    }
}
