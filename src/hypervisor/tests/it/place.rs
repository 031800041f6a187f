//! A place to run the service in: a directory, a cloud that outlives it, and a tunnel and links without a kernel or processes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use peerpods_agentlink::{Connected, Link, LinkError, LinkSpec, LinkTarget, Opened, Shims};
use peerpods_hypervisor::failure::Failure;
use peerpods_hypervisor::journal::DiskJournal;
use peerpods_hypervisor::ledger::NoLedger;
use peerpods_hypervisor::record::{Record, Stage};
use peerpods_hypervisor::{Ask, Config, Parts, Service};
use peerpods_podnet::{Probe, Tunnel, TunnelError, TunnelSpec};
use peerpods_podvm::SandboxId;
use peerpods_podvm::annotations::PodRequest;
use peerpods_podvm::network::{ObservedPod, PodInterface};
use peerpods_provider::fake::FakeCloud;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A network namespace that is always there.
pub(crate) const NETNS: &str = "/proc/self/ns/net";

/// A directory, a cloud and links; services come and go.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) cloud: Arc<FakeCloud>,
    pub(crate) links: Arc<Links>,
    pub(crate) config: Config,
}

/// A service that runs.
pub(crate) struct Running {
    pub(crate) service: Service,
    pub(crate) shutdown: CancellationToken,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            pods_dir: dir.path().join("pods"),
            state_dir: dir.path().join("state"),
            cluster_id: Some("c1".parse().unwrap()),
            start_deadline: Duration::from_secs(60),
            sweep_interval: Duration::from_millis(200),
            ..Config::default()
        };
        Self { dir, cloud: FakeCloud::bare(), links: Arc::default(), config }
    }

    pub(crate) fn journal_dir(&self) -> PathBuf {
        self.dir.path().join("state/journal")
    }

    pub(crate) fn journal(&self) -> DiskJournal {
        DiskJournal::open(self.journal_dir()).unwrap()
    }

    pub(crate) fn parts(&self) -> Parts {
        Parts {
            provider: Arc::new(self.cloud.provider()),
            tunnel: Arc::new(NoTunnel),
            link: self.links.clone(),
            ledger: Arc::new(NoLedger),
            journal: Arc::new(self.journal()),
        }
    }

    pub(crate) async fn open(&self) -> Running {
        let shutdown = CancellationToken::new();
        let service = peerpods_hypervisor::open(self.config.clone(), self.parts(), shutdown.clone());
        Running { service: service.await.unwrap(), shutdown }
    }

    /// The record of a sandbox as it is on the disk.
    pub(crate) fn on_disk(&self, sandbox: &str) -> Option<serde_json::Value> {
        let text = std::fs::read(self.journal_dir().join(format!("{sandbox}.json"))).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

impl Running {
    pub(crate) async fn create(&self, sandbox: &str) -> Result<PathBuf, Arc<Failure>> {
        self.service.create(ask(sandbox)).await
    }

    pub(crate) async fn start(&self, sandbox: &str) -> Result<(), Arc<Failure>> {
        self.service.start(&id(sandbox)).await
    }

    pub(crate) async fn stop(&self, sandbox: &str) {
        self.service.stop(&id(sandbox)).await.unwrap();
    }

    /// Waits until the service has let go of a sandbox.
    pub(crate) async fn gone(&self, sandbox: &str) {
        while self.service.get(&id(sandbox)).is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends the service; what runs goes on.
    pub(crate) async fn end(self) {
        self.shutdown.cancel();
        self.service.drained().await;
    }
}

pub(crate) fn id(sandbox: &str) -> SandboxId {
    sandbox.parse().unwrap()
}

pub(crate) fn request(pod: &str) -> PodRequest {
    let annotations = HashMap::from([
        ("io.kubernetes.cri.sandbox-name".to_owned(), pod.to_owned()),
        ("io.kubernetes.cri.sandbox-namespace".to_owned(), "default".to_owned()),
    ]);
    PodRequest::from_annotations(&annotations).unwrap()
}

pub(crate) fn ask(sandbox: &str) -> Ask {
    Ask { sandbox: id(sandbox), request: request("web"), netns: NETNS.into() }
}

/// A record as a service of this boot left it.
pub(crate) fn record(place: &Place, sandbox: &str, stage: Stage, vni: u32) -> Record {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    Record {
        sandbox: id(sandbox),
        cluster: "c1".parse().unwrap(),
        stage,
        request: request("web"),
        netns: NETNS.into(),
        agent_socket: place.config.pods_dir.join(sandbox).join("agent.ttrpc"),
        vm_name: format!("podvm-web-{sandbox}"),
        vni,
        vxlan_port: 9000,
        secondary: Vec::new(),
        tunnel: None,
        instance: None,
        guest: None,
        whereabouts: None,
        creations_unix_ms: if stage == Stage::Created { Vec::new() } else { vec![1] },
        created_unix_ms: 1_795_000_000_000,
        boot_id: boot_id.trim().to_owned(),
        why: None,
    }
}

/// Every pod has the same interface; tunnels are words.
struct NoTunnel;

#[async_trait]
impl Tunnel for NoTunnel {
    async fn observe(&self, _: &Path) -> Result<ObservedPod, TunnelError> {
        let primary = PodInterface {
            name: "eth0".into(),
            address: "10.1.0.2/24".parse().unwrap(),
            more_addresses: Vec::new(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            mtu: 1500,
            routes: Vec::new(),
            neighbors: Vec::new(),
        };
        Ok(ObservedPod { primary, secondary: Vec::new(), left_out: Vec::new() })
    }

    async fn underlay_mtu(&self, _: IpAddr) -> Result<Option<u32>, TunnelError> {
        Ok(None)
    }

    async fn verify(&self, _: &Path, _: &TunnelSpec, _: Probe) -> Result<(), TunnelError> {
        Ok(())
    }

    async fn setup(&self, _: &Path, _: &TunnelSpec) -> Result<(), TunnelError> {
        Ok(())
    }

    async fn teardown(&self, _: &Path, _: &TunnelSpec) -> Result<(), TunnelError> {
        Ok(())
    }
}

/// Links that remember the keys they were given. An agent answers at once, unless they hang.
#[derive(Default)]
pub(crate) struct Links {
    pub(crate) keys: Mutex<Vec<String>>,
    pub(crate) hang: AtomicBool,
}

#[async_trait]
impl Link for Links {
    async fn open(&self, spec: &LinkSpec) -> Result<Opened, LinkError> {
        std::fs::create_dir_all(spec.agent_socket.parent().unwrap()).unwrap();
        std::fs::write(&spec.agent_socket, "").unwrap();
        Ok(Opened { admits_by_token: true })
    }

    async fn connect(&self, _: &LinkSpec, target: &LinkTarget) -> Result<Connected, LinkError> {
        self.keys.lock().unwrap().push(target.identity.key.clone());
        if self.hang.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let (port_open_after, agent_after) = (Duration::ZERO, Duration::ZERO);
        Ok(Connected { guest_key: None, port_open_after, agent_after, attempts: 1 })
    }

    async fn shims(&self, _: &LinkSpec) -> Result<Option<Shims>, LinkError> {
        Ok(None)
    }

    async fn close(&self, _: &LinkSpec) -> Result<(), LinkError> {
        Ok(())
    }
}
