//! The same for the real daemon: a process that dies at its own system calls, on the real kernel and a real disk.
//!
//! One life is CreateVM, StartVM, StopVM of one sandbox. The process is killed at one of its calls ([`tracer`]), started again, and
//! what must hold is looked at: a pod that was running still answers, and nothing is left when it is over.

pub mod tracer;

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use peerpods_provider::fake::{CloudServer, FakeCloud, NetnsOptions, NetnsVm};
use tempfile::TempDir;

use self::tracer::{Death, Seen, Traced};
use crate::node::{Pod, built, guest_program, processes_naming};
use crate::shim::{GoShim, check_agent};

/// How far the shim came before its daemon died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// The daemon did not answer yet.
    Nothing,
    /// CreateVM was answered.
    Created,
    /// StartVM was answered: the pod runs.
    Running,
    /// StopVM was called; whether it was recorded is not known.
    StopAsked,
    /// StopVM was answered.
    Stopped,
}

/// One life, as it went.
#[derive(Debug)]
pub struct Life {
    /// How far it came.
    pub reached: Reached,
    /// The system calls, and at which the daemon died.
    pub seen: Seen,
}

/// A cloud of network namespaces, and place for one node after the other.
pub struct Bed {
    cloud: Arc<FakeCloud>,
    dir: TempDir,
    _server: CloudServer,
    lives: u64,
}

/// How long anything may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// The calls in which a second death comes.
const AGAIN: u64 = 40;
const POLL: Duration = Duration::from_millis(20);

#[expect(clippy::missing_panics_doc, reason = "the test framework fails the test")]
impl Bed {
    /// A cloud whose VMs run the real guest programs.
    pub async fn new() -> Self {
        // Short: the agent sockets below it must fit a socket address. Not below /run, which VMs do not see.
        let dir = tempfile::Builder::new().prefix("ppx").tempdir_in("/tmp").unwrap();
        let options = NetnsOptions {
            guest: guest_program("peerpods-guest"),
            agent: guest_program("miniagent"),
            dir: dir.path().join("vms"),
            subnet: "10.153.0.0/24".parse().unwrap(),
        };
        let cloud = FakeCloud::new(NetnsVm::new(options).await.unwrap());
        let server = CloudServer::start(&cloud, &dir.path().join("cloud")).unwrap();
        Self { cloud, dir, _server: server, lives: 0 }
    }

    /// Lets a daemon live on an empty disk until it dies at `death`, starts it again, and sees to it that everything ends well.
    /// `give_up` decides what the shim does about a start that broke: stop the sandbox, or nothing.
    pub async fn one_life(&mut self, death: Death, give_up: GiveUp) -> Life {
        self.lives += 1;
        let node =
            Place { dir: self.dir.path().join(self.lives.to_string()), cloud: self.dir.path().join("cloud") };
        fs::create_dir(&node.dir).unwrap();
        let pod = Pod::new(u8::try_from(self.lives % 250).unwrap()).await;
        let daemon = node.start(death);
        let reached = node.live(&daemon, &pod).await;
        let seen = if daemon.ended() { daemon.wait().unwrap() } else { node.end(daemon).await };
        if seen.died_at.is_none() {
            assert_eq!(reached, Reached::Stopped, "nobody killed it:\n{}", node.log());
        }
        self.recover(&node, pod, reached, give_up).await;
        Life { reached, seen }
    }

    /// A second death, while the first is recovered from.
    async fn die_again(&self, node: &Place) {
        let daemon = node.start(Death::Before(self.lives % AGAIN + 1));
        let began = tokio::time::Instant::now();
        while !daemon.ended() && began.elapsed() < RUNS {
            tokio::time::sleep(POLL).await;
        }
    }

    async fn recover(&self, node: &Place, pod: Pod, reached: Reached, give_up: GiveUp) {
        if self.lives.is_multiple_of(3) {
            self.die_again(node).await;
        }
        assert!(self.cloud.machines().len() <= 1, "two VMs of one sandbox:\n{}", node.log());
        let daemon = node.start(Death::Never);
        node.wait_until("it answers again", &daemon, async || node.shim().version().await.is_ok()).await;
        if reached == Reached::Running {
            let answer = check_agent(&node.agent_socket()).await;
            assert_eq!(answer.ok(), Some(1), "a pod that runs does not answer:\n{}", node.log());
            assert_eq!(self.cloud.machines().len(), 1, "a pod that runs has no VM:\n{}", node.log());
        }
        // A StopVM that was answered is not repeated. One that was not is, by kubelet.
        let ran = matches!(reached, Reached::Running | Reached::StopAsked);
        if ran || (reached < Reached::Running && give_up == GiveUp::Stop) {
            node.shim().stop(SANDBOX).await.unwrap();
        }
        pod.remove().await;
        let began = tokio::time::Instant::now();
        while !self.leftovers(node).is_empty() {
            let left = self.leftovers(node);
            assert!(began.elapsed() < PATIENCE, "left: {left:#?}\n{}", node.log());
            tokio::time::sleep(POLL).await;
        }
        drop(node.end(daemon).await);
        assert_eq!(self.leftovers(node), Vec::<String>::new());
    }

    fn leftovers(&self, node: &Place) -> Vec<String> {
        let mut left = self.cloud.leftovers();
        for place in ["pods", "state/journal"] {
            let entries = fs::read_dir(node.dir.join(place)).into_iter().flatten().flatten();
            left.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        let links = processes_naming(&node.dir.display().to_string());
        left.extend(links.into_iter().filter(|line| !line.contains("peerpods-test-node")));
        left
    }
}

/// What the shim does about a call that broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUp {
    /// It calls StopVM.
    Stop,
    /// Nothing; its network namespace goes.
    Silently,
}

/// How long the pod runs: a little longer than the service's sweep interval.
const RUNS: Duration = Duration::from_millis(1_200);
/// The one sandbox.
const SANDBOX: &str = "life";

/// The disk of one node, and where its cloud is.
struct Place {
    dir: PathBuf,
    cloud: PathBuf,
}

impl Place {
    fn start(&self, death: Death) -> Traced {
        let log = File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let program =
            [built("peerpods-test-node"), self.dir.clone(), self.cloud.clone(), built("peerpods-link")];
        Traced::start(program.map(PathBuf::into_os_string).into(), log, death).unwrap()
    }

    fn shim(&self) -> GoShim {
        GoShim::new(self.dir.join("hypervisor.sock"))
    }

    fn agent_socket(&self) -> PathBuf {
        self.dir.join("pods").join(SANDBOX).join("agent.ttrpc")
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// What the shim does until its daemon dies.
    async fn live(&self, daemon: &Traced, pod: &Pod) -> Reached {
        let shim = self.shim();
        while shim.version().await.is_err() {
            if daemon.ended() {
                return Reached::Nothing;
            }
            tokio::time::sleep(POLL).await;
        }
        if shim.create(SANDBOX, &pod.path).await.is_err() {
            return Reached::Nothing;
        }
        if shim.start(SANDBOX).await.is_err() {
            return Reached::Created;
        }
        if check_agent(&self.agent_socket()).await.is_err() {
            return Reached::Running;
        }
        // The service looks around meanwhile.
        tokio::time::sleep(RUNS).await;
        if daemon.ended() {
            return Reached::Running;
        }
        if shim.stop(SANDBOX).await.is_err() {
            return Reached::StopAsked;
        }
        // Until the removal is over, or the daemon is.
        while !daemon.ended() && self.records() > 0 {
            tokio::time::sleep(POLL).await;
        }
        Reached::Stopped
    }

    fn records(&self) -> usize {
        fs::read_dir(self.dir.join("state/journal")).map_or(0, Iterator::count)
    }

    async fn wait_until(&self, what: &str, daemon: &Traced, condition: impl AsyncFn() -> bool) {
        let began = tokio::time::Instant::now();
        while !condition().await {
            assert!(!daemon.ended(), "the daemon ended by itself:\n{}", self.log());
            assert!(began.elapsed() < PATIENCE, "not seen in {PATIENCE:?}: {what}\n{}", self.log());
            tokio::time::sleep(POLL).await;
        }
    }

    async fn end(&self, daemon: Traced) -> Seen {
        daemon.signal(Signal::SIGTERM);
        tokio::task::spawn_blocking(move || daemon.wait()).await.unwrap().unwrap()
    }
}
