//! The node service as a process that can be killed, and its cloud and VMs, which live on in this one.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peerpods_provider::fake::{CloudServer, FakeCloud, NetnsOptions, NetnsVm};
use tempfile::TempDir;

use crate::node::{built, guest_program, processes_naming};
use crate::shim::GoShim;
use crate::untried::UNTRIED_TUNNELS;

/// How long the service may take until it answers; far beyond what is asked of it, for slow machines.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node whose service is `peerpods-test-node`. VMs are network namespaces with the real guest programs.
pub struct KilledNode {
    /// The cloud.
    pub cloud: Arc<FakeCloud>,
    dir: TempDir,
    _server: CloudServer,
    child: Option<Child>,
    /// Further arguments of the service.
    settings: Vec<String>,
    started: Instant,
    answered: Option<Duration>,
}

#[expect(clippy::missing_panics_doc, reason = "the test framework fails the test")]
impl KilledNode {
    /// The node with its cloud; the service is not started yet.
    pub async fn new() -> Self {
        let dir = Self::place();
        let options = NetnsOptions {
            guest: guest_program("peerpods-guest"),
            agent: guest_program("miniagent"),
            dir: dir.path().join("vms"),
            subnet: "10.151.0.0/23".parse().unwrap(),
        };
        let cloud = FakeCloud::new(NetnsVm::new(options).await.unwrap());
        Self::of(dir, cloud)
    }

    /// A node whose service looks at its sandboxes as seldom as `peerpods hypervisor` does.
    #[must_use]
    pub fn at_rest(cloud: Arc<FakeCloud>) -> Self {
        let mut node = Self::of(Self::place(), cloud);
        let often = peerpods_hypervisor::Config::default().sweep_interval;
        // Its VMs are an open port each.
        node.configure(&[format!("sweep={}", often.as_secs()), UNTRIED_TUNNELS.to_owned()]);
        node
    }

    fn place() -> TempDir {
        // Short: the agent sockets below it must fit a socket address. Not below /run, which VMs do not see.
        tempfile::Builder::new().prefix("ppk").tempdir_in("/tmp").unwrap()
    }

    fn of(dir: TempDir, cloud: Arc<FakeCloud>) -> Self {
        let server = CloudServer::start(&cloud, &dir.path().join("cloud")).unwrap();
        let bin = dir.path().join("userland/bin");
        std::fs::create_dir_all(&bin).unwrap();
        for place in ["proc", "dev", "sys", "run", "tmp"] {
            std::fs::create_dir(dir.path().join("userland").join(place)).unwrap();
        }
        std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for program in ["sh", "sleep", "stty"] {
            symlink("busybox", bin.join(program)).unwrap();
        }
        Self {
            cloud,
            dir,
            _server: server,
            child: None,
            settings: Vec::new(),
            started: Instant::now(),
            answered: None,
        }
    }

    /// Settings of the service as `peerpods-test-node` takes them; they count from the next start.
    pub fn configure(&mut self, settings: &[String]) {
        settings.clone_into(&mut self.settings);
    }

    /// What containers have below them: a shell and `sleep`.
    #[must_use]
    pub fn userland(&self) -> PathBuf {
        self.dir.path().join("userland")
    }

    /// Starts the service on what an earlier run left.
    pub fn boot(&mut self) {
        assert!(self.child.is_none(), "the service is running");
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = Command::new(built("peerpods-test-node"));
        command.arg(self.dir.path()).arg(self.dir.path().join("cloud")).arg(built("peerpods-link"));
        command.args(&self.settings);
        (self.started, self.answered) = (Instant::now(), None);
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Waits until the service answers; how long that took from its start, however often it is asked.
    pub async fn ready(&mut self) -> Duration {
        if let Some(answered) = self.answered {
            return answered;
        }
        while self.shim().version().await.is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "the service ended with {ended:?}:\n{}", self.log());
            assert!(self.started.elapsed() < PATIENCE, "the service does not answer:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        *self.answered.insert(self.started.elapsed())
    }

    /// Ends the service as the kernel's out-of-memory killer would.
    pub fn kill_9(&mut self) {
        let mut child = self.child.take().unwrap();
        assert_eq!(child.try_wait().unwrap(), None, "the service had ended by itself:\n{}", self.log());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends the service with SIGTERM; answers its status and how long it took.
    pub async fn terminate(&mut self) -> (ExitStatus, Duration) {
        let mut child = self.child.take().unwrap();
        let began = Instant::now();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        (status, began.elapsed())
    }

    /// How long after its start the service accepted a connection. To be asked at once.
    pub async fn accepting(&self) -> Duration {
        while tokio::net::UnixStream::connect(self.socket()).await.is_err() {
            assert!(self.started.elapsed() < PATIENCE, "the service does not listen:\n{}", self.log());
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        self.started.elapsed()
    }

    /// The service's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map(Child::id).unwrap()
    }

    /// Everything the node keeps; processes that belong to it name it in their command lines.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// A Go-like shim on the node's socket.
    #[must_use]
    pub fn shim(&self) -> GoShim {
        GoShim::new(self.socket())
    }

    /// The shim's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("hypervisor.sock")
    }

    /// The id of each sandbox's VM.
    ///
    /// # Panics
    /// When a sandbox has two.
    #[must_use]
    pub fn vms(&self) -> BTreeMap<String, String> {
        let mut vms = BTreeMap::new();
        for made in self.cloud.machines() {
            let sandbox = made.key.sandbox.to_string();
            if let Some(other) = vms.insert(sandbox.clone(), made.instance.id.clone()) {
                panic!("sandbox {sandbox} has two VMs, {other} and {}:\n{}", made.instance.id, self.log());
            }
        }
        vms
    }

    /// What sandboxes left; the service itself must not run.
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

    /// Records of sandboxes.
    #[must_use]
    pub fn recorded(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("state/journal")).map_or(0, Iterator::count)
    }

    /// The service's log so far; all its runs.
    #[must_use]
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(200)..].join("\n")
    }

    /// Keeps everything for somebody to look at.
    pub fn keep(&mut self) {
        self.dir.disable_cleanup(true);
    }
}

impl Drop for KilledNode {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        // A failed test must not leave link processes running.
        for line in processes_naming(&self.dir.path().display().to_string()) {
            let pid = line.trim_start_matches("process ").split(':').next().unwrap_or_default().to_owned();
            drop(Command::new("kill").args(["-9", &pid]).output());
        }
    }
}
