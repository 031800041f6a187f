//! A node in a network namespace of its own: the daemon as a process, the client, and what they leave.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::far::{Far, Strike};
use crate::form;
use crate::guests::Guests;
use crate::proxy::{self, Proxy};
use crate::relay::Relay;

/// How long anything may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(180);
/// What the daemon's log says when the provider has answered.
const USABLE: &str = "VMs reach this node";
const POLL: Duration = Duration::from_millis(20);
/// How often somebody looks in vain for an instance that is not shown yet.
const LOOKS_IN_VAIN: usize = 2;

/// What is different from node to node.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Unique in this process.
    pub(crate) name: String,
    pub(crate) strikes: Vec<Strike>,
    pub(crate) instances: Instances,
}

/// When EC2 shows what it made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instances {
    /// At once.
    Shown,
    /// When somebody looked for one in vain after something happened.
    Hidden,
}

impl Instances {
    /// For how long the daemon reckons with instances that are not shown, in seconds. Where they are not, longer than a busy machine
    /// takes to look twice.
    fn visible_within(self) -> u32 {
        match self {
            Self::Shown => 4,
            Self::Hidden => 20,
        }
    }
}

/// A node, its daemon not running.
pub(crate) struct Node {
    dir: TempDir,
    /// Its one sandbox.
    pub(crate) sandbox: String,
    pub(crate) far: Arc<Far>,
    proxy: Proxy,
    runtime: Runtime,
    child: Option<Child>,
    /// How often the daemon was started.
    started: u32,
}

impl Node {
    /// Puts this thread, and with it everything of the node, into a network namespace of its own.
    pub(crate) fn new(moto: SocketAddr, plan: &Plan) -> Self {
        let relay = Relay::to(moto);
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let moto = relay.listen();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Short: the agent sockets below it must fit a socket address. Not below /run, which guests do not see.
        let dir = tempfile::Builder::new().prefix("ppa").tempdir_in("/tmp").unwrap();
        let sandbox = format!("{}-{}", plan.name, std::process::id());
        let guests = runtime.block_on(Guests::new(dir.path()));
        let interface = guests.interface();
        let far = Arc::new(Far::new(moto, &sandbox, guests, &plan.strikes));
        let proxy = Proxy::attended(moto, far.clone());
        if plan.instances == Instances::Hidden {
            proxy.front().hidden_for = Duration::MAX;
        }
        let node = Self { dir, sandbox, far, proxy, runtime, child: None, started: 0 };
        node.make_userland();
        node.configure(moto, &interface, plan.instances.visible_within());
        node
    }

    /// What containers are made of: a shell's worth of busybox.
    fn make_userland(&self) {
        let userland = self.dir.path().join("userland");
        for place in ["bin", "proc", "dev", "sys", "run", "tmp"] {
            fs::create_dir_all(userland.join(place)).unwrap();
        }
        fs::copy("/bin/busybox", userland.join("bin/busybox")).unwrap();
        for program in ["echo", "sleep"] {
            symlink("busybox", userland.join("bin").join(program)).unwrap();
        }
    }

    fn configure(&self, moto: SocketAddr, interface: &str, visible_within: u32) {
        let first = |action, filter: &[(&str, &str)], element| {
            let xml = self.runtime.block_on(proxy::ask(moto, action, filter));
            form::texts(&xml, element).swap_remove(0)
        };
        let intel = [("Filter.1.Name", "architecture"), ("Filter.1.Value.1", "x86_64")];
        let image = first("DescribeImages", &intel, "imageId");
        let subnet = first("DescribeSubnets", &[], "subnetId");
        let group = first("DescribeSecurityGroups", &[], "groupId");
        let (base, cluster, endpoint) = (self.dir.path().display(), &self.sandbox, self.proxy.address);
        let text = format!(
            "provider = \"aws\"\nsocket = \"{base}/h.sock\"\npods-dir = \"{base}/pods\"\nstate-dir = \"{base}/state\"\n\
             client-dir = \"{base}/client\"\ncluster-id = \"{cluster}\"\nhost-interface = \"{interface}\"\n\
             link-placement = \"detached\"\nproxy-timeout = \"3m\"\ntags = \"cost-centre=4711\"\n\
             # What is left is to be seen, not swept up.\ngc = \"off\"\n\n[aws]\nregion = \"us-east-1\"\n\
             endpoint-url = \"http://{endpoint}\"\nimage = \"{image}\"\ninstance-type = \"t3.medium\"\nsubnets = \"{subnet}\"\n\
             security-groups = \"{group}\"\nvisible-within = \"{visible_within}s\"\n"
        );
        fs::write(self.dir.path().join("peerpods.toml"), text).unwrap();
    }

    /// Waits for something of EC2's side.
    pub(crate) fn ask<F: Future>(&self, question: F) -> F::Output {
        self.runtime.block_on(question)
    }

    fn peerpods(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peerpods"));
        command.arg("--config").arg(self.dir.path().join("peerpods.toml")).args(arguments).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
        command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "secret");
        command
    }

    fn start(&mut self) {
        self.started += 1;
        let log = fs::File::create(self.log_file()).unwrap();
        let mut command = self.peerpods(&["hypervisor"]);
        command.stdout(Stdio::null()).stderr(log);
        self.child = Some(self.far.daemon(|| command.spawn().unwrap()));
    }

    /// Starts the daemon and waits until it can make VMs; one that is killed meanwhile is started again.
    pub(crate) fn boot(&mut self) {
        self.start();
        self.until_ready();
    }

    fn until_ready(&mut self) {
        let began = Instant::now();
        self.attend();
        while !self.is_ready() {
            assert!(began.elapsed() < PATIENCE, "the daemon does not become ready:\n{}", self.log());
            std::thread::sleep(POLL);
            self.attend();
        }
    }

    /// It answers, and EC2 has told it all that a VM needs: until then it refuses to make any.
    fn is_ready(&self) -> bool {
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        log.contains(USABLE) && self.health("/readyz").starts_with("HTTP/1.1 200")
    }

    /// What has to be done while others work: a daemon that was killed is started again, an instance that was looked for is shown.
    fn attend(&mut self) {
        if self.far.killed() {
            self.child.take().unwrap().wait().unwrap();
            self.start();
        }
        let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
        // Killed between the two looks is no end by itself.
        assert!(
            ended.is_none() || self.far.killed(),
            "the daemon ended by itself ({ended:?}):\n{}",
            self.log()
        );
        if !self.far.struck().is_empty() && self.far.looks_since() >= LOOKS_IN_VAIN {
            self.proxy.front().hidden_for = Duration::ZERO;
        }
    }

    /// Runs the client to its end, and the daemon again as often as it is killed; it is ready afterwards.
    pub(crate) fn client(&mut self, arguments: &[&str]) -> Output {
        let mut command = self.peerpods(arguments);
        let mut client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        while client.try_wait().unwrap().is_none() {
            if began.elapsed() > PATIENCE {
                drop(client.kill());
                panic!("{arguments:?} does not end:\n{}", self.log());
            }
            self.attend();
            std::thread::sleep(POLL);
        }
        self.until_ready();
        client.wait_with_output().unwrap()
    }

    /// [`Node::client`] that has to succeed; what it printed.
    pub(crate) fn succeed(&mut self, arguments: &[&str]) -> String {
        let output = self.client(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}\n{}", self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// `peerpods sandbox run`, whose command prints `up`.
    pub(crate) fn run(&mut self, options: &[&str]) -> Output {
        let (sandbox, userland) = (self.sandbox.clone(), self.dir.path().join("userland"));
        let own =
            ["sandbox", "run", "--id", &sandbox, "--userland", userland.to_str().unwrap(), "--no-stdin"];
        self.client(&[&own, options, &["--", "/bin/echo", "up"]].concat())
    }

    /// What a health endpoint answers; empty when nobody does. The address is the default one: the network is the node's.
    fn health(&self, path: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(peerpods::health::DEFAULT_ADDRESS) {
            drop(write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\n\r\n"));
            drop(stream.read_to_string(&mut answer));
        }
        answer
    }

    /// What a sandbox left on this node: records, sockets, processes.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let below = |place: &str| fs::read_dir(self.dir.path().join(place)).into_iter().flatten().flatten();
        let files = ["pods", "state/journal", "vms"].into_iter().flat_map(below);
        let mut left: Vec<String> = files.map(|entry| entry.path().display().to_string()).collect();
        let daemon = self.child.as_ref().map(Child::id);
        left.extend(
            self.processes()
                .into_iter()
                .filter(|pid| Some(*pid) != daemon)
                .map(|pid| format!("process {pid}")),
        );
        left
    }

    /// Processes whose command line names this node's directory.
    fn processes(&self) -> Vec<u32> {
        let name = self.dir.path().display().to_string();
        let pids = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let named = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&name)
        };
        pids.filter(named).collect()
    }

    fn log_file(&self) -> std::path::PathBuf {
        self.dir.path().join(format!("log-{}", self.started))
    }

    /// The end of the last daemon's log, and every call to EC2.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(60)..].join("\n");
        format!("{end}\ncalls to EC2: {}", self.far.calls().join(", "))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        // A failed test must not leave guests and links running.
        self.runtime.block_on(self.far.guests.end_all());
        for pid in self.processes() {
            drop(Command::new("kill").args(["-9", &pid.to_string()]).output());
        }
        let pod = format!("peerpods-{}", self.sandbox);
        drop(Command::new("ip").args(["netns", "del", &pod]).output());
    }
}
