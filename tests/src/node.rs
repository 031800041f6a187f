//! A node to test on: a private network namespace for the whole test, a fake cloud in it, and the node service in this process.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use peerpods_agentlink::process::LinkProcesses;
use peerpods_hypervisor::journal::DiskJournal;
use peerpods_hypervisor::ledger::NoLedger;
use peerpods_hypervisor::{Config, Lifecycle, Parts};
use peerpods_podnet::VxlanTunnel;
use peerpods_podnet::pod_netns::{PodNetns, PodNetnsSpec};
use peerpods_provider::fake::{FakeCloud, NetnsOptions, NetnsVm};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::shim::GoShim;

/// Runs `test` on a thread of its own in a network namespace of its own, so that the test is the only user of "this node's" network.
/// Threads and processes that it starts are in there too.
///
/// # Panics
/// When the namespace cannot be made, or the test panics.
pub fn on_private_network(test: impl FnOnce() + Send + 'static) {
    let body = move || {
        unshare_network().unwrap();
        test();
    };
    if let Err(panic) = std::thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Puts this thread, and what it starts from now on, into a network namespace of its own.
///
/// # Errors
/// The kernel's.
pub fn unshare_network() -> std::io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    run("ip", &["link", "set", "lo", "up"]);
    Ok(())
}

/// [`on_private_network`] for an async test, with a runtime of its own.
///
/// # Panics
/// As above.
pub fn in_private_network<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    on_private_network(|| {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(test());
    });
}

/// Runs a program and answers its output.
///
/// # Panics
/// When it fails.
#[must_use]
pub fn output(program: &str, args: &[&str]) -> String {
    let ended = std::process::Command::new(program).args(args).output().unwrap();
    let error = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{program} {args:?}: {error}");
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

/// Runs a program that has to succeed.
///
/// # Panics
/// When it fails.
pub fn run(program: &str, args: &[&str]) {
    drop(output(program, args));
}

/// A program of this workspace, built by the same `cargo test --workspace`.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn built(program: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let dir = own.parent().unwrap();
    // Tests lie one directory deeper than programs.
    let dir = if dir.ends_with("deps") { dir.parent().unwrap() } else { dir };
    let path = dir.join(program);
    assert!(path.exists(), "{} is not built: run the suites with cargo test --workspace", path.display());
    path
}

/// A program of the guest, in the directory `make test` names.
#[must_use]
pub fn guest_program(program: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("PEERPODS_TEST_GUEST_PROGRAMS").unwrap_or_default()).join(program)
}

/// What a test changes of the service's configuration before it starts.
pub type Tune = fn(&mut Config);

/// The service and its cloud, in this process. Link processes are real ones.
pub struct Node {
    /// Everything the node keeps, removed at the end.
    pub dir: TempDir,
    /// The cloud, which outlives the service.
    pub cloud: Arc<FakeCloud>,
    tune: Tune,
    running: Option<(Lifecycle, JoinHandle<()>)>,
}

static NODES: AtomicU32 = AtomicU32::new(0);

impl Node {
    /// A node whose VMs are network namespaces with the real guest programs.
    pub async fn with_guests(tune: Tune) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = NetnsOptions {
            guest: guest_program("peerpods-guest"),
            agent: guest_program("miniagent"),
            dir: dir.path().join("vms"),
            subnet: "10.151.0.0/24".parse().unwrap(),
        };
        let cloud = FakeCloud::new(NetnsVm::new(options).await.unwrap());
        Self::start(dir, cloud, tune).await
    }

    /// A node whose VMs have nothing behind their address.
    pub async fn with_bare_vms(tune: Tune) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start(dir, FakeCloud::bare(), tune).await
    }

    async fn start(dir: TempDir, cloud: Arc<FakeCloud>, tune: Tune) -> Self {
        let mut node = Self { dir, cloud, tune, running: None };
        node.boot().await;
        node
    }

    fn config(&self) -> Config {
        let base = self.dir.path();
        let mut config = Config {
            socket: base.join("hypervisor.sock"),
            pods_dir: base.join("pods"),
            state_dir: base.join("state"),
            sweep_interval: Duration::from_millis(200),
            netns_gone_ttl: Duration::from_millis(500),
            start_deadline: Duration::from_secs(30),
            // A test that is about the limit sets one.
            limit_per_node: None,
            ..Config::default()
        };
        (self.tune)(&mut config);
        config
    }

    /// Starts the service on what an earlier run left.
    pub async fn boot(&mut self) {
        assert!(self.running.is_none(), "the service is running");
        let life = Lifecycle::new();
        let parts = Parts {
            provider: Arc::new(self.cloud.provider()),
            tunnel: Arc::new(VxlanTunnel::new()),
            link: Arc::new(LinkProcesses::new(built("peerpods-link"))),
            ledger: Arc::new(NoLedger),
            journal: Arc::new(DiskJournal::open(self.dir.path().join("state/journal")).unwrap()),
        };
        let (config, told) = (self.config(), life.clone());
        let task = tokio::spawn(async move {
            peerpods_hypervisor::run(config, parts, told).await.unwrap();
        });
        self.running = Some((life, task));
        eventually("the service answers", || async { self.shim().version().await.is_ok() }).await;
    }

    /// Runs the program `peerpods` as a client of this node.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn peerpods(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = std::process::Command::new(built("peerpods"));
        command.args(arguments).arg("--socket").arg(self.socket()).env_clear();
        command.stdin(std::process::Stdio::null()).output().unwrap()
    }

    /// Ends the service the way SIGTERM does.
    pub async fn shut_down(&mut self) {
        if let Some((life, task)) = self.running.take() {
            life.drain();
            task.await.unwrap();
        }
    }

    /// The life of the service that runs, to end it in other ways.
    #[must_use]
    pub fn life(&self) -> Lifecycle {
        self.running.as_ref().unwrap().0.clone()
    }

    /// A Go-like shim on the node's socket.
    #[must_use]
    pub fn shim(&self) -> GoShim {
        GoShim::new(self.dir.path().join("hypervisor.sock"))
    }

    /// The shim's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("hypervisor.sock")
    }

    /// Asserts that sandboxes left nothing: no VM, no record, no pod directory, no link process.
    pub async fn assert_nothing_left(&self) {
        eventually("nothing is left", || async { self.leftovers().is_empty() }).await;
    }

    /// What is left of sandboxes, by name.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = self.cloud.leftovers();
        for place in ["pods", "state/journal"] {
            let entries = std::fs::read_dir(self.dir.path().join(place)).into_iter().flatten().flatten();
            left.extend(entries.map(|e| e.path().display().to_string()));
        }
        left.extend(processes_naming(&self.dir.path().display().to_string()));
        left
    }
}

/// Processes whose command line names `text`; how link processes and guests of a test are told.
#[must_use]
pub fn processes_naming(text: &str) -> Vec<String> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if pid != own && line.contains(text) {
            found.push(format!("process {pid}: {line}"));
        }
    }
    found
}

/// A pod's network namespace, made as a CNI plug-in makes it and removed at the end of the test.
pub struct Pod {
    name: String,
    /// The other half of its interface, on the node.
    node_interface: String,
    /// Its path.
    pub path: PathBuf,
    /// Its address.
    pub address: std::net::Ipv4Addr,
}

impl Pod {
    /// Makes pod number `n` of the test (0 to 250).
    pub async fn new(n: u8) -> Self {
        let name = format!("pptest-{}-{}", std::process::id(), NODES.fetch_add(1, Ordering::Relaxed));
        let address = format!("10.152.{n}.2").parse().unwrap();
        let spec = PodNetnsSpec {
            node_address: format!("10.152.{n}.1/24").parse().unwrap(),
            pod_address: format!("10.152.{n}.2/24").parse().unwrap(),
            mtu: 1500,
        };
        let made = PodNetns::create(&name, spec).await.unwrap();
        Self { name, node_interface: made.node_interface, path: made.path, address }
    }

    /// Removes the namespace, as the CNI does when the pod is over.
    pub async fn remove(&self) {
        peerpods_podnet::pod_netns::remove(&self.name).await.unwrap();
    }
}

/// Removes the namespaces of pods of this process, also of one that was being made when it was interrupted.
pub fn remove_pods() {
    let listed = std::process::Command::new("ip").args(["netns", "list"]).output();
    let listed = listed.map(|listed| listed.stdout).unwrap_or_default();
    let own = format!("pptest-{}-", std::process::id());
    for name in String::from_utf8_lossy(&listed).split_whitespace().filter(|name| name.starts_with(&own)) {
        drop(std::process::Command::new("ip").args(["netns", "del", name]).output());
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // At once: with its namespace it goes when the kernel comes to that, and until then it counts as left behind.
        drop(std::process::Command::new("ip").args(["link", "del", &self.node_interface]).output());
        drop(std::process::Command::new("ip").args(["netns", "del", &self.name]).output());
    }
}

/// What `look` still finds when it finds nothing any more, or half a minute has passed.
pub async fn settled(look: impl Fn() -> Vec<String>) -> Vec<String> {
    let began = tokio::time::Instant::now();
    loop {
        let left = look();
        if left.is_empty() || began.elapsed() > Duration::from_secs(30) {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waits for `condition`, for half a minute at most.
///
/// # Panics
/// When it does not come true.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    for _ in 0..300 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(condition().await, "not seen within 30 s: {what}");
}
