//! VMs that take no time: far ends of the link in this process, behind addresses of a network namespace of their own, so that what the
//! service adds is all there is to see. They have no pod network; what arrives through a tunnel is dropped.
//!
//! ```text
//!   this network namespace                 ppi<pid>
//!   ppi0 10.150.0.1/15  ────── veth ──────  eth0, every address of 10.150.128.0/17 ─ far ends ─ one agent
//!                                           10.151.0.0/16: silent until a VM takes one
//! ```

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ipnet::IpNet;
use nix::sched::{CloneFlags, setns};
use peerpods_agentlink::far::{Far, FarConfig};
use peerpods_agentlink::tls::{FarKeys, MinVersion, far_server};
use peerpods_podvm::guest_config::ApfConfig;
use peerpods_podvm::user_data::{APF_PATH, CloudConfig};
use peerpods_proto::ttrpc::health::health_check_response::ServingStatus;
use peerpods_proto::ttrpc::health::{CheckRequest, HealthCheckResponse};
use peerpods_proto::ttrpc::health_ttrpc::{Health, create_health};
use peerpods_provider::UserData;
use peerpods_provider::fake::{FakeVm, Launch, Launcher};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use ttrpc::asynchronous::{Server, TtrpcContext};

use crate::node::{output, run};

/// What a reader of figures measured with them must know.
pub const INSTANT: &str = "With instant VMs tunnels are laid and not tried with packets, as there is no guest at their far end, and VMs have the \
                           stock form of identity (a key in user data), which saves the admission by a token.";

const PORT: u16 = 15150;

/// When a VM's port opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// Before the provider answers.
    Done,
    /// So long after it; until then connections are refused, as by a VM whose kernel is up.
    Refusing(Duration),
    /// So long after it; until then packets are dropped, as on a cloud's network before a VM's kernel is up.
    Silent(Duration),
}

/// VMs in this process. Needs to be on a private network ([`crate::node::in_private_network`]).
pub struct InstantVms {
    shared: Arc<Shared>,
}

struct Shared {
    netns: String,
    /// The runtime whose one thread is in the VMs' namespace.
    inside: Handle,
    end: CancellationToken,
    boot: Mutex<Boot>,
    /// When the port of the VM of each name opened.
    opened: Mutex<HashMap<String, Instant>>,
    agent: PathBuf,
    _agent_dir: TempDir,
}

#[expect(clippy::missing_panics_doc, reason = "the test framework fails the test")]
impl InstantVms {
    /// Makes their network and their agent.
    pub async fn new() -> Self {
        let netns = format!("ppi{}", std::process::id());
        run("ip", &["netns", "add", &netns]);
        lay_wire(&netns);
        let dir = tempfile::Builder::new().prefix("ppi").tempdir_in("/tmp").unwrap();
        let agent = dir.path().join("agent");
        serve_agent(&agent).await;
        let end = CancellationToken::new();
        let shared = Shared {
            inside: runtime_in(&netns, end.clone()),
            netns,
            end,
            boot: Mutex::new(Boot::Done),
            opened: Mutex::default(),
            agent,
            _agent_dir: dir,
        };
        Self { shared: Arc::new(shared) }
    }

    /// For a [`peerpods_provider::fake::FakeCloud`].
    #[must_use]
    pub fn launcher(&self) -> impl Launcher + use<> {
        Brings(self.shared.clone())
    }

    /// How VMs boot from now on.
    pub fn boot(&self, boot: Boot) {
        *self.shared.boot.lock().unwrap_or_else(PoisonError::into_inner) = boot;
    }

    /// When the port of the VM whose name ends so opened.
    #[must_use]
    pub fn opened(&self, name_ends: &str) -> Instant {
        let opened = self.shared.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.iter().find(|(name, _)| name.ends_with(name_ends)).map(|(_, at)| *at).unwrap()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end.cancel();
        drop(std::process::Command::new("ip").args(["netns", "del", &self.netns]).output());
    }
}

fn lay_wire(netns: &str) {
    run("ip", &["link", "add", "ppi0", "type", "veth", "peer", "name", "eth0", "netns", netns]);
    run("ip", &["addr", "add", "10.150.0.1/15", "dev", "ppi0"]);
    run("ip", &["link", "set", "ppi0", "up"]);
    run("ip", &["-n", netns, "link", "set", "lo", "up"]);
    run("ip", &["-n", netns, "addr", "add", "10.150.0.2/15", "dev", "eth0"]);
    run("ip", &["-n", netns, "link", "set", "eth0", "up"]);
    run("ip", &["-n", netns, "route", "add", "local", "10.150.128.0/17", "dev", "lo"]);
    // By one neighbour to all of them: the kernel's table of neighbours, which all namespaces share, is full with a thousand, and a new one
    // would wait for five seconds until the oldest may be forgotten.
    run("ip", &["route", "add", "10.150.128.0/17", "via", "10.150.0.2"]);
}

/// A thread in the namespace that runs what is spawned on the handle, until told to end.
fn runtime_in(netns: &str, end: CancellationToken) -> Handle {
    let path = Path::new("/run/netns").join(netns);
    let (handle, handed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        setns(std::fs::File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        handle.send(runtime.handle().clone()).unwrap();
        runtime.block_on(end.cancelled());
    });
    handed.recv().unwrap()
}

struct Serving;

#[async_trait]
impl Health for Serving {
    async fn check(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<HealthCheckResponse> {
        Ok(HealthCheckResponse { status: ServingStatus::SERVING.into(), ..Default::default() })
    }
}

/// The one agent of all, which only says that it serves; it runs as long as the runtime.
async fn serve_agent(socket: &Path) {
    let address = format!("unix://{}", socket.display());
    let mut server = Server::new().bind(&address).unwrap().register_service(create_health(Arc::new(Serving)));
    server.start().await.unwrap();
    tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(server);
    });
}

struct Brings(Arc<Shared>);

#[async_trait]
impl Launcher for Brings {
    async fn launch(&self, launch: Launch<'_>) -> io::Result<Box<dyn FakeVm>> {
        let boot = *self.0.boot.lock().unwrap_or_else(PoisonError::into_inner);
        let number = u32::try_from(launch.number % 0x7f00).map_err(io::Error::other)? + 0x100;
        let network = match boot {
            Boot::Done | Boot::Refusing(_) => Ipv4Addr::new(10, 150, 128, 0),
            Boot::Silent(_) => Ipv4Addr::new(10, 151, 0, 0),
        };
        if let Boot::Silent(_) = boot {
            drop_silently(&self.0.netns, Ipv4Addr::from_bits(network.to_bits() + number))?;
        }
        let vm = InstantVm {
            address: Ipv4Addr::from_bits(network.to_bits() + number),
            off: self.0.end.child_token(),
        };
        let far = Far::new(far_config(launch.user_data, &self.0.agent)?);
        let opening = self.0.inside.spawn(open(self.0.clone(), launch.name.to_owned(), boot, vm.address));
        let off = vm.off.clone();
        if boot == Boot::Done {
            let listener = opening.await.map_err(io::Error::other)??;
            self.0.inside.spawn(async move { far.serve(listener, off).await });
        } else {
            self.0.inside.spawn(async move {
                let listener = opening.await.map_err(io::Error::other)??;
                far.serve(listener, off).await;
                io::Result::Ok(())
            });
        }
        Ok(Box::new(vm))
    }

    fn worker_address(&self) -> Option<IpNet> {
        "10.150.0.1/15".parse().ok()
    }

    fn leftovers(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Clouds answer ARP for their VMs, whatever those do. The VM's address belongs to nobody yet, so what is sent there is dropped.
fn drop_silently(netns: &str, address: Ipv4Addr) -> io::Result<()> {
    let mac = output("ip", &["netns", "exec", netns, "cat", "/sys/class/net/eth0/address"]);
    let mut entry = std::process::Command::new("ip");
    entry.args(["neigh", "replace", &address.to_string(), "lladdr", mac.trim()]);
    entry.args(["dev", "ppi0", "nud", "permanent"]).output().map(drop)
}

async fn open(shared: Arc<Shared>, name: String, boot: Boot, address: Ipv4Addr) -> io::Result<TcpListener> {
    match boot {
        Boot::Done => {}
        Boot::Refusing(after) => tokio::time::sleep(after).await,
        Boot::Silent(after) => {
            tokio::time::sleep(after).await;
            run("ip", &["-n", &shared.netns, "addr", "add", &format!("{address}/32"), "dev", "eth0"]);
        }
    }
    let listener = TcpListener::bind(SocketAddr::from((address, PORT))).await?;
    let now = Instant::now();
    shared.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(name, now);
    Ok(listener)
}

/// What the guest makes of its user data.
fn far_config(user_data: &UserData, agent: &Path) -> io::Result<FarConfig> {
    let text = std::str::from_utf8(user_data.expose()).map_err(io::Error::other)?;
    let parsed = CloudConfig::parse(text).map_err(io::Error::other)?;
    let apf = ApfConfig::from_json(parsed.content(APF_PATH).unwrap_or_default()).map_err(io::Error::other)?;
    let missing = || io::Error::other("the user data has no keys");
    let keys = FarKeys {
        certificate: apf.tls_server_cert.as_deref().ok_or_else(missing)?,
        key: apf.tls_server_key.as_ref().ok_or_else(missing)?.expose(),
        client_ca: apf.tls_client_ca.as_deref().ok_or_else(missing)?,
    };
    let tls = far_server(keys, MinVersion::default()).map_err(io::Error::other)?;
    Ok(FarConfig::new(tls, agent.to_owned(), "/run/netns/podns".into()))
}

struct InstantVm {
    address: Ipv4Addr,
    off: CancellationToken,
}

#[async_trait]
impl FakeVm for InstantVm {
    fn addresses(&self) -> Vec<IpAddr> {
        vec![IpAddr::V4(self.address)]
    }

    fn console(&self) -> Option<PathBuf> {
        None
    }

    fn running(&self) -> bool {
        !self.off.is_cancelled()
    }

    async fn power_off(&self) -> io::Result<()> {
        self.off.cancel();
        Ok(())
    }

    async fn remove(&self) -> io::Result<()> {
        self.power_off().await
    }
}

impl Drop for InstantVm {
    fn drop(&mut self) {
        self.off.cancel();
    }
}
