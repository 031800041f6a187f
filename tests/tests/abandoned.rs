//! Sandboxes that are over although nobody said so, and deletions that do not succeed: no VM is forgotten. Needs root for the network
//! namespaces; the VMs have nothing behind their address.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peerpods_agentlink::process::LinkProcesses;
use peerpods_agentlink::{Connected, Link, LinkError, LinkSpec, LinkTarget, Opened, ShimProcess, Shims};
use peerpods_hypervisor::journal::{DiskJournal, Journal, JournalError, Loaded};
use peerpods_hypervisor::ledger::NoLedger;
use peerpods_hypervisor::record::{Record, Stage};
use peerpods_hypervisor::{Ask, Config, Parts, Service};
use peerpods_podnet::VxlanTunnel;
use peerpods_podvm::SandboxId;
use peerpods_podvm::annotations::PodRequest;
use peerpods_podvm::annotations::keys::UNATTENDED;
use peerpods_provider::ErrorKind;
use peerpods_provider::fake::{Calls, FakeCloud, Fault, Operation};
use peerpods_test_require::{Need, require};
use peerpods_tests::node::{Node, Pod, built, eventually, in_private_network};
use peerpods_tests::shim::{admin_get, annotations};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

const NEEDS: &[Need] = &[Need::Root, Need::NetworkNamespaces, Need::Program("ip")];
const NEVER: Duration = Duration::from_secs(3600);

fn on_a_node<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F + Send + 'static) {
    if require(test, NEEDS) {
        in_private_network(body);
    }
}

/// Real links, except for what they know of the shim's process, which the test says.
struct Links {
    real: LinkProcesses,
    last: Mutex<ShimProcess>,
    panic: Panic,
}

/// A defect the test can have, once.
#[derive(Default)]
struct Panic {
    armed: AtomicBool,
    done: AtomicBool,
}

#[async_trait::async_trait]
impl Link for Links {
    async fn open(&self, spec: &LinkSpec) -> Result<Opened, LinkError> {
        self.real.open(spec).await
    }

    async fn connect(&self, spec: &LinkSpec, target: &LinkTarget) -> Result<Connected, LinkError> {
        self.real.connect(spec, target).await
    }

    async fn shims(&self, spec: &LinkSpec) -> Result<Option<Shims>, LinkError> {
        if self.panic.armed.swap(false, Ordering::SeqCst) {
            self.panic.done.store(true, Ordering::SeqCst);
            panic!("a defect, as the test asked for");
        }
        let shims = self.real.shims(spec).await?;
        Ok(shims.map(|shims| Shims { last: *self.last.lock().unwrap(), ..shims }))
    }

    async fn close(&self, spec: &LinkSpec) -> Result<(), LinkError> {
        self.real.close(spec).await
    }
}

/// A disk that refuses the first few records of a stop.
struct FullDisk {
    real: DiskJournal,
    refusals: AtomicU32,
}

#[async_trait::async_trait]
impl Journal for FullDisk {
    async fn load(&self) -> Result<Loaded, JournalError> {
        self.real.load().await
    }

    async fn append(&self, record: &Record) -> Result<(), JournalError> {
        let refuses = |left: u32| left.checked_sub(1);
        if record.stage == Stage::Stopping
            && self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, refuses).is_ok()
        {
            let source = std::io::Error::from_raw_os_error(nix::libc::ENOSPC);
            return Err(JournalError::File { step: "write", path: PathBuf::from("disk"), source });
        }
        self.real.append(record).await
    }

    async fn remove(&self, sandbox: &SandboxId) -> Result<(), JournalError> {
        self.real.remove(sandbox).await
    }
}

/// A service without a socket, with links and a journal of the test's own.
struct Bench {
    dir: TempDir,
    cloud: Arc<FakeCloud>,
    links: Arc<Links>,
    service: Service,
}

impl Bench {
    async fn open(refusals: u32, tune: fn(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cloud = FakeCloud::bare();
        let real = LinkProcesses::new(built("peerpods-link"));
        let links = Arc::new(Links { real, last: Mutex::new(ShimProcess::Lives), panic: Panic::default() });
        let journal = DiskJournal::open(dir.path().join("state/journal")).unwrap();
        let parts = Parts {
            provider: Arc::new(cloud.provider()),
            tunnel: Arc::new(VxlanTunnel::new()),
            link: links.clone(),
            ledger: Arc::new(NoLedger),
            journal: Arc::new(FullDisk { real: journal, refusals: refusals.into() }),
        };
        let mut config = Config {
            pods_dir: dir.path().join("pods"),
            state_dir: dir.path().join("state"),
            sweep_interval: Duration::from_millis(100),
            netns_gone_ttl: NEVER,
            shim_gone_ttl: Duration::from_millis(500),
            ..Config::default()
        };
        tune(&mut config);
        let service = peerpods_hypervisor::open(config, parts, CancellationToken::new()).await.unwrap();
        Self { dir, cloud, links, service }
    }

    async fn create(&self, id: &str, pod: &Pod, unattended: &str) -> UnixStream {
        let mut all = annotations("web");
        all.insert(UNATTENDED.to_owned(), unattended.to_owned());
        let request = PodRequest::from_annotations(&all).unwrap();
        let ask = Ask { sandbox: id.parse().unwrap(), request, netns: pod.path.clone() };
        let socket = self.service.create(ask).await.unwrap();
        UnixStream::connect(socket).await.unwrap()
    }

    fn failure(&self, id: &str) -> Option<String> {
        self.service.get(&id.parse().unwrap())?.failure.map(|failure| failure.chain())
    }

    fn known(&self, id: &str) -> bool {
        self.service.get(&id.parse().unwrap()).is_some()
    }
}

/// Time for several looks at every sandbox.
async fn looks() {
    tokio::time::sleep(Duration::from_millis(1800)).await;
}

#[test]
fn a_shim_that_died_ends_its_sandbox_and_only_its_own() {
    on_a_node("a_shim_that_died_ends_its_sandbox_and_only_its_own", || async {
        let bench = Bench::open(0, |_| {}).await;
        let pods = [Pod::new(70).await, Pod::new(71).await, Pod::new(72).await];
        let orphaned = bench.create("orphaned", &pods[0], "").await;
        let attended = bench.create("attended", &pods[1], "").await;
        let unattended = bench.create("unattended", &pods[2], "true").await;
        drop((orphaned, unattended));
        looks().await;
        assert!(bench.known("orphaned"), "a connection's end alone says nothing");
        // What the link says of the process does not count while a connection is open.
        *bench.links.last.lock().unwrap() = ShimProcess::Gone;
        eventually("it is unwound", || async { !bench.known("orphaned") }).await;
        looks().await;
        assert!(bench.known("attended") && bench.known("unattended"));
        assert_eq!((bench.failure("attended"), bench.failure("unattended")), (None, None));
        drop(attended);
        eventually("it is unwound", || async { !bench.known("attended") }).await;
        bench.service.stop(&"unattended".parse().unwrap()).await.unwrap();
        eventually("all are gone", || async { bench.service.list().is_empty() }).await;
        bench.service.drained().await;
    });
}

#[test]
fn a_pod_whose_network_and_connections_are_gone_is_unwound_at_once() {
    on_a_node("a_pod_whose_network_and_connections_are_gone_is_unwound_at_once", || async {
        // The network's own time is an hour, the shim's process is said to live.
        let bench = Bench::open(0, |_| {}).await;
        let pods = [Pod::new(73).await, Pod::new(74).await];
        let over = bench.create("over", &pods[0], "").await;
        let holding = bench.create("holding", &pods[1], "").await;
        looks().await;
        for pod in &pods {
            pod.remove().await;
        }
        looks().await;
        assert!(bench.known("over") && bench.known("holding"), "connections are still open");
        drop(over);
        eventually("it is unwound", || async { !bench.known("over") }).await;
        looks().await;
        assert!(bench.known("holding"));
        drop(holding);
        eventually("all are gone", || async { bench.service.list().is_empty() }).await;
        bench.service.drained().await;
    });
}

#[test]
fn a_stop_the_disk_did_not_take_is_recorded_as_soon_as_it_does() {
    on_a_node("a_stop_the_disk_did_not_take_is_recorded_as_soon_as_it_does", || async {
        let bench = Bench::open(2, |_| {}).await;
        let pod = Pod::new(75).await;
        let shim = bench.create("full", &pod, "").await;
        bench.cloud.script(Operation::Delete, Calls::All, Fault::Fail(ErrorKind::Transient));
        bench.service.stop(&"full".parse().unwrap()).await.unwrap();
        let file = bench.dir.path().join("state/journal/full.json");
        let stage = || {
            serde_json::from_slice::<serde_json::Value>(&std::fs::read(&file).unwrap()).unwrap()["stage"]
                .clone()
        };
        assert_eq!(stage(), "created", "the disk refused");
        eventually("the stop is recorded", || async { stage() == "stopping" }).await;
        assert!(bench.known("full"), "its VM may be there");
        drop(shim);
        bench.cloud.heal();
        eventually("all is gone", || async { bench.service.list().is_empty() }).await;
        assert!(!file.exists(), "and the record went last");
        bench.service.drained().await;
    });
}

#[test]
fn a_disk_that_never_takes_the_stop_keeps_no_vm_alive() {
    on_a_node("a_disk_that_never_takes_the_stop_keeps_no_vm_alive", || async {
        let bench = Bench::open(u32::MAX, |_| {}).await;
        let pod = Pod::new(76).await;
        drop(bench.create("full", &pod, "").await);
        bench.service.stop(&"full".parse().unwrap()).await.unwrap();
        eventually("all is gone", || async { bench.service.list().is_empty() }).await;
        assert!(bench.cloud.calls(Operation::Delete) > 0);
        assert!(!bench.dir.path().join("state/journal/full.json").exists());
        bench.service.drained().await;
    });
}

#[test]
fn whatever_the_provider_answers_a_deletion_goes_on_and_says_how() {
    on_a_node("whatever_the_provider_answers_a_deletion_goes_on_and_says_how", || async {
        let kinds = [
            ErrorKind::Transient,
            ErrorKind::Throttled,
            ErrorKind::Capacity,
            ErrorKind::Quota,
            ErrorKind::Denied,
            ErrorKind::Invalid,
        ];
        let mut node = Node::with_bare_vms(|_| {}).await;
        let (pod, shim) = (Pod::new(77).await, node.shim());
        for kind in kinds {
            let id = kind.label().replace('_', "-");
            shim.create(&id, &pod.path).await.unwrap();
            node.cloud.script(Operation::Delete, Calls::All, Fault::Fail(kind));
            shim.stop(&id).await.unwrap();
            eventually("it was tried again and again", || async {
                let told = admin_get(&node.socket(), &id).await.unwrap();
                let trouble = told.troubles.iter().find(|t| t.step == "delete the VM");
                trouble.is_some_and(|t| t.tries >= 3 && t.error.contains(kind.label()))
                    && told.state == "stopping"
            })
            .await;
            node.cloud.heal();
            eventually("it is gone", || async { admin_get(&node.socket(), &id).await.is_err() }).await;
        }
        node.assert_nothing_left().await;
        node.shut_down().await;
    });
}

#[test]
fn not_found_is_believed_only_when_there_really_is_no_vm() {
    on_a_node("not_found_is_believed_only_when_there_really_is_no_vm", || async {
        let mut node = Node::with_bare_vms(|config| config.start_deadline = NEVER).await;
        let (pod, shim) = (Pod::new(78).await, node.shim());
        for (id, fault, deletes) in [
            ("gone", Fault::LoseAnswer(ErrorKind::NotFound), 1),
            ("there", Fault::Fail(ErrorKind::NotFound), 2),
        ] {
            let (before, born) = (node.cloud.calls(Operation::Delete), node.cloud.born());
            shim.create(id, &pod.path).await.unwrap();
            let starter = shim.clone();
            let start = tokio::spawn(async move { starter.start(id).await });
            eventually("a VM is made", || async { node.cloud.born() > born }).await;
            node.cloud.script(Operation::Delete, Calls::Nth(before + 1), fault);
            shim.stop(id).await.unwrap();
            assert!(start.await.unwrap().is_err());
            node.assert_nothing_left().await;
            assert_eq!(node.cloud.calls(Operation::Delete) - before, deletes, "{id}");
        }
        node.shut_down().await;
    });
}

#[test]
fn a_stop_that_meets_a_broken_driver_is_carried_out_by_the_next() {
    on_a_node("a_stop_that_meets_a_broken_driver_is_carried_out_by_the_next", || async {
        let bench = Bench::open(0, |_| {}).await;
        let pod = Pod::new(79).await;
        let _shim = bench.create("broken", &pod, "").await;
        bench.links.panic.armed.store(true, Ordering::SeqCst);
        eventually("its driver panics", || async { bench.links.panic.done.load(Ordering::SeqCst) }).await;
        bench.service.stop(&"broken".parse().unwrap()).await.unwrap();
        eventually("it is gone", || async { !bench.known("broken") }).await;
        assert!(!bench.dir.path().join("state/journal/broken.json").exists());
        bench.service.drained().await;
    });
}
