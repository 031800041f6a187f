//! The real programs as processes: `peerpods hypervisor` with the QEMU provider, and `peerpods` as its client.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peerpods_test_require::{Need, require};
use tempfile::TempDir;

use crate::node::{built, on_private_network};

/// What every test with real VMs needs of its machine.
pub const NEEDS: &[Need] = &[
    Need::Root,
    Need::NetworkNamespaces,
    Need::Program("ip"),
    Need::Program("qemu-system-x86_64"),
    Need::Path("/dev/net/tun"),
    Need::Variable("PEERPODS_TEST_IMAGE"),
];

/// One test at a time: they share two cores with QEMU's translator.
static ONE: Mutex<()> = Mutex::new(());

/// Runs a test with real VMs, in a network of its own, on a machine that has [`NEEDS`] and what it needs beyond that.
pub fn with_vms(test: &str, extra: &[Need], body: impl FnOnce() + Send + 'static) {
    if require(test, &[NEEDS, extra].concat()) {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        on_private_network(body);
    }
}

/// A node service in a process of its own, with everything it keeps in one directory.
pub struct Daemon {
    dir: TempDir,
    image: PathBuf,
    child: Option<Child>,
    /// Where the programs are, when they are not those of this build.
    programs: Option<PathBuf>,
}

/// The pod VM image that `make test` built.
#[must_use]
pub fn image() -> PathBuf {
    std::env::var_os("PEERPODS_TEST_IMAGE").map(PathBuf::from).unwrap_or_default()
}

#[expect(clippy::missing_panics_doc, reason = "the test framework fails the test")]
impl Daemon {
    /// Starts the service with pod VMs from `image` on a bridge and subnet of its own.
    #[must_use]
    pub fn start(image: PathBuf) -> Self {
        Self::start_from(image, None)
    }

    /// [`Daemon::start`] with a further line of configuration.
    #[must_use]
    pub fn start_configured(image: PathBuf, line: &str) -> Self {
        let mut daemon = Self::unstarted(image, None);
        daemon.configure(line);
        daemon.boot();
        daemon
    }

    /// [`Daemon::start`] with the programs in a directory, as of an older build.
    #[must_use]
    pub fn start_with(image: PathBuf, programs: &Path) -> Self {
        Self::start_from(image, Some(programs.to_owned()))
    }

    fn start_from(image: PathBuf, programs: Option<PathBuf>) -> Self {
        let mut daemon = Self::unstarted(image, programs);
        daemon.boot();
        daemon
    }

    fn unstarted(image: PathBuf, programs: Option<PathBuf>) -> Self {
        // Short: the agent sockets below it must fit a socket address.
        let dir = tempfile::Builder::new().prefix("ppq").tempdir_in("/tmp").unwrap();
        let daemon = Self { dir, image, child: None, programs };
        daemon.write_configuration();
        daemon
    }

    fn write_configuration(&self) {
        let base = self.dir.path().display();
        let text = format!(
            "provider = \"qemu\"\nsocket = \"{base}/h.sock\"\npods-dir = \"{base}/pods\"\nstate-dir = \"{base}/state\"\n\
             client-dir = \"{base}/client\"\nproxy-timeout = \"3m\"\n\n[qemu]\nimage = \"{image}\"\nstate-dir = \"{base}/vms\"\n\
             run-dir = \"{base}/qemu\"\nbridge = \"ppq0\"\nsubnet = \"10.156.0.0/24\"\naccel = \"tcg\"\n",
            image = self.image.display(),
        );
        fs::write(self.configuration(), text).unwrap();
    }

    /// Puts a line before the others of the configuration file; it counts from the next start.
    pub fn configure(&self, line: &str) {
        let others = fs::read_to_string(self.configuration()).unwrap();
        fs::write(self.configuration(), format!("{line}\n{others}")).unwrap();
    }

    fn configuration(&self) -> PathBuf {
        self.dir.path().join("peerpods.toml")
    }

    /// A path below the directory of everything it keeps.
    #[must_use]
    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// The shim's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("h.sock")
    }

    /// A sandbox id of this test run, so that what a failed run left is in nobody's way.
    #[must_use]
    pub fn id(&self, name: &str) -> String {
        format!("{name}-{}", std::process::id())
    }

    /// Starts the service on what an earlier run left, and waits until it answers.
    pub fn boot(&mut self) {
        let answers = |daemon: &Self| {
            daemon.peerpods(&["sandbox", "list"]).output().is_ok_and(|listed| listed.status.success())
        };
        self.boot_until("answer", Duration::from_millis(100), answers);
    }

    /// Starts it and looks again and again, with this pause, until something is seen; how long that took from the start of the process.
    fn boot_until(&mut self, what: &str, pause: Duration, seen: impl Fn(&Self) -> bool) -> Duration {
        assert!(self.child.is_none(), "the service is running");
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let began = Instant::now();
        self.child = Some(self.peerpods(&["hypervisor"]).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        while !seen(self) {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "the service does not {what}:\n{}",
                self.log()
            );
            std::thread::sleep(pause);
        }
        began.elapsed()
    }

    /// [`Daemon::boot`] with the programs of this build from here on: the upgrade.
    pub fn boot_as_built(&mut self) {
        self.programs = None;
        self.boot();
    }

    /// The programs of the link processes that serve this node's sandboxes.
    #[must_use]
    pub fn programs_of_links(&self) -> Vec<PathBuf> {
        let lines = crate::node::processes_naming(&self.dir.path().display().to_string());
        let links = lines.iter().filter(|line| line.contains("peerpods-link"));
        let pids = links.filter_map(|line| line.strip_prefix("process ")?.split_once(':'));
        pids.filter_map(|(pid, _)| fs::read_link(format!("/proc/{pid}/exe")).ok()).collect()
    }

    /// As [`Daemon::boot`], told by `/readyz`; how long it took from the start of the process.
    pub fn boot_until_ready(&mut self) -> Duration {
        let ready = |daemon: &Self| daemon.health("/readyz").starts_with("HTTP/1.1 200");
        self.boot_until("become ready", Duration::from_millis(5), ready)
    }

    /// As [`Daemon::boot`], told by the first connection that is accepted; how long it took from the start of the process.
    pub fn boot_until_accepting(&mut self) -> Duration {
        let accepts = |daemon: &Self| std::os::unix::net::UnixStream::connect(daemon.socket()).is_ok();
        self.boot_until("listen", Duration::from_micros(500), accepts)
    }

    /// The service's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// What a health endpoint answers, head and body; empty when nobody does. The address is the default one: the network is the test's.
    #[must_use]
    pub fn health(&self, path: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(peerpods::health::DEFAULT_ADDRESS) {
            drop(write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\n\r\n"));
            drop(stream.read_to_string(&mut answer));
        }
        answer
    }

    /// Ends the service as the kernel's out-of-memory killer would.
    pub fn kill_9(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends the service a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().unwrap().id();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    /// Waits until the service has ended by itself, for a minute at most; its status.
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if began.elapsed() > Duration::from_secs(60) {
                drop(child.kill());
                panic!("the service does not end:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The program `peerpods` with this node's configuration.
    #[must_use]
    pub fn peerpods(&self, arguments: &[&str]) -> Command {
        let program = self.programs.as_ref().map_or_else(|| built("peerpods"), |dir| dir.join("peerpods"));
        let mut command = Command::new(program);
        command.arg("--config").arg(self.configuration()).args(arguments);
        command
    }

    /// Runs `peerpods` and answers what it printed, asserting that it succeeded.
    #[must_use]
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.peerpods(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}\n{}", text(&output), self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs `peerpods` and answers what it said on stderr, asserting that it failed.
    #[must_use]
    pub fn fail(&self, arguments: &[&str]) -> String {
        let output = self.peerpods(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?} succeeded: {}", text(&output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The service's log so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// What sandboxes left: processes that name our directory, interfaces, files.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let own = self.child.as_ref().map(Child::id);
        let mut left = crate::node::processes_naming(&self.dir.path().display().to_string());
        left.retain(|line| own.is_none_or(|pid| !line.starts_with(&format!("process {pid}:"))));
        let links = crate::node::output("ip", &["-o", "link"]);
        left.extend(links.lines().filter(|l| !l.contains(" lo:")).map(str::to_owned));
        for place in ["pods", "state/journal", "client", "vms", "qemu"] {
            left.extend(files_below(&self.dir.path().join(place)));
        }
        left
    }

    /// Waits until sandboxes have left nothing.
    pub fn assert_nothing_left(&self) {
        let began = Instant::now();
        while !self.leftovers().is_empty() {
            let patience = began.elapsed() < Duration::from_secs(30);
            assert!(patience, "left behind: {:#?}\n{}", self.leftovers(), self.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        // A failed test must not leave VMs running.
        for line in crate::node::processes_naming(&self.dir.path().display().to_string()) {
            let pid = line.trim_start_matches("process ").split(':').next().unwrap_or_default().to_owned();
            drop(Command::new("kill").args(["-9", &pid]).output());
        }
        let named = Command::new("ip").args(["netns", "list"]).output().map(|o| o.stdout).unwrap_or_default();
        let ours = format!("-{}", std::process::id());
        for name in String::from_utf8_lossy(&named).split_whitespace().filter(|name| name.ends_with(&ours)) {
            drop(Command::new("ip").args(["netns", "del", name]).output());
        }
    }
}

/// Files a sandbox could have left; locks and the remembered KVM probe belong to the node.
fn files_below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            let below = files_below(&path);
            if below.is_empty() && dir.ends_with("pods") {
                found.push(path.display().to_string());
            }
            found.extend(below);
        } else if !path.to_string_lossy().ends_with("lock") {
            found.push(path.display().to_string());
        }
    }
    found
}

/// What a program printed, for a failure message.
#[must_use]
pub fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// An image like the given one whose initramfs is empty: its kernel finds nothing to run.
///
/// # Panics
/// When it cannot be written.
pub fn image_that_does_not_boot(from: &Path, to: &Path) {
    use peerpods_podvm::image::{DESCRIPTION, INITRAMFS, KERNEL, QemuImage};
    fs::copy(from.join(KERNEL), to.join(KERNEL)).unwrap();
    let mut empty = fs::File::create(to.join(INITRAMFS)).unwrap();
    empty.write_all(&[0; 512]).unwrap();
    let mut image: QemuImage = serde_json::from_slice(&fs::read(from.join(DESCRIPTION)).unwrap()).unwrap();
    let digest = crate::node::output("sha256sum", &[&to.join(INITRAMFS).display().to_string()]);
    image.outputs.insert(INITRAMFS.to_owned(), digest.split(' ').next().unwrap_or_default().to_owned());
    fs::write(to.join(DESCRIPTION), serde_json::to_vec(&image).unwrap()).unwrap();
}
