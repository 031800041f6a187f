//! From the start of a command to its first output in a new pod VM, against QEMU alone with a kernel and a busybox shell; and what the
//! guest's daemon takes of memory.
//!
//! `BENCH_RUNS` sets the number of pairs (5).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark fails by panicking")]

use std::fmt;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cpio::newc::{Builder, ModeFileType, trailer};
use peerpods_podvm::image::KERNEL;
use peerpods_test_require::{Need, require};
use peerpods_tests::bench::process::Footprint;
use peerpods_tests::bench::{self, Aim, Report, Row, Samples, Unit, Value};
use peerpods_tests::daemon::{Daemon, image};
use peerpods_tests::node::{Node, Pod, in_private_network, on_private_network, processes_naming};
use tempfile::TempDir;

const NEEDS: &[Need] = &[
    Need::Root,
    Need::NetworkNamespaces,
    Need::Program("qemu-system-x86_64"),
    Need::Path("/dev/net/tun"),
    Need::Path("/bin/busybox"),
    Need::Variable("PEERPODS_TEST_IMAGE"),
    Need::Variable("PEERPODS_TEST_GUEST_PROGRAMS"),
];

/// No boot takes so long.
const PATIENCE: Duration = Duration::from_secs(180);
/// Product: a cold start within so much of the provider's own floor.
const FLOOR: f64 = 1.2;

fn main() {
    if !bench::is_asked_for() || !require("boot", NEEDS) {
        return;
    }
    on_private_network(|| {
        let mut report = Report::new("boot");
        first_output(&mut report);
        in_private_network(move || async move {
            guest_memory(&mut report).await;
            report.finish();
        });
    });
}

/// `peerpods sandbox run`, and QEMU alone, in turn.
fn first_output(report: &mut Report) {
    let daemon = Daemon::start(image());
    let shape = Shape::of_vms(&daemon);
    let like = shape.to_string();
    let bare = Bare::new(shape);
    let (mut ours, mut alone) = (Samples::new(Unit::Millis), Samples::new(Unit::Millis));
    for _ in 0..bench::number("BENCH_RUNS", 5) {
        alone.took(bare.boot());
        ours.took(run_in_a_pod(&daemon));
    }
    let (ours, alone) = (ours.value(), alone.value());
    let ratio = ours.median / alone.median;
    report.row(
        Row::new(
            "To the first output of a command",
            format!("`peerpods sandbox run -- echo up`, exec to \"up\" ({like})"),
            ours,
        )
        .against(format!("QEMU alone, same kernel, a busybox shell says \"up\" ({like})"), alone)
        .aim(Aim::new(format!("≤ {FLOOR} × that"), ratio <= FLOOR)),
    );
}

/// From the start of the command to its first line.
fn run_in_a_pod(daemon: &Daemon) -> Duration {
    let mut command = daemon.peerpods(&["sandbox", "run", "--", "echo", "up"]);
    let began = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = [0; 3];
    child.stdout.take().unwrap().read_exact(&mut line).unwrap();
    let took = began.elapsed();
    assert_eq!(&line, b"up\n");
    assert!(child.wait().unwrap().success(), "{}", daemon.log());
    took
}

/// What the service's VMs get of the machine, as the command line of one says it: option and value in turn.
struct Shape(Vec<String>);

impl Shape {
    const OPTIONS: [&str; 6] = ["-machine", "-accel", "-cpu", "-smp", "-m", "-append"];

    /// Makes one to look at.
    fn of_vms(daemon: &Daemon) -> Self {
        let id = daemon.id("shape");
        drop(daemon.succeed(&["sandbox", "create", "--id", &id, "--pod-network", "10.155.9.0/24"]));
        drop(daemon.succeed(&["sandbox", "start", &id, "--quiet"]));
        let lines = processes_naming(&daemon.path("").display().to_string());
        let qemu = lines.iter().find(|line| line.contains("qemu-system")).unwrap();
        let pid = qemu.trim_start_matches("process ").split(':').next().unwrap();
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        drop(daemon.succeed(&["sandbox", "stop", &id]));
        daemon.assert_nothing_left();
        let words: Vec<&str> = line.split('\0').collect();
        let pairs = words.windows(2).filter(|pair| Self::OPTIONS.contains(&pair[0]));
        Self(pairs.flatten().map(|word| (*word).to_owned()).collect())
    }

    fn value(&self, option: &str) -> &str {
        self.0.windows(2).find(|pair| pair[0] == option).map(|pair| pair[1].as_str()).unwrap()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} CPU, {} MiB", self.value("-accel"), self.value("-smp"), self.value("-m"))
    }
}

/// QEMU with the image's kernel, the shape of the service's VMs and their kernel's arguments, and an initramfs that holds a shell.
struct Bare {
    dir: TempDir,
    image: PathBuf,
    shape: Shape,
}

impl Bare {
    fn new(shape: Shape) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("initramfs"), initramfs()).unwrap();
        Self { dir, image: image(), shape }
    }

    /// From exec to the shell's line on the console.
    fn boot(&self) -> Duration {
        let console = self.dir.path().join("console");
        drop(std::fs::remove_file(&console));
        let began = Instant::now();
        let mut qemu = Command::new("qemu-system-x86_64")
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .args(&self.shape.0)
            .arg("-kernel")
            .arg(self.image.join(KERNEL))
            .arg("-initrd")
            .arg(self.dir.path().join("initramfs"))
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .spawn()
            .unwrap();
        while !says_up(&console) {
            assert!(began.elapsed() < PATIENCE, "the VM never said that it is up");
            std::thread::sleep(Duration::from_millis(2));
        }
        let took = began.elapsed();
        qemu.kill().unwrap();
        qemu.wait().unwrap();
        took
    }
}

fn says_up(console: &Path) -> bool {
    let text = std::fs::read(console).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().any(|line| line.trim_end() == "up")
}

fn initramfs() -> Vec<u8> {
    let mut out = Vec::new();
    let mut add = |entry: Builder, data: &[u8]| {
        let mut file = entry.write(&mut out, u32::try_from(data.len()).unwrap());
        file.write_all(data).unwrap();
        file.finish().unwrap();
    };
    for dir in ["dev", "bin"] {
        add(Builder::new(dir).nlink(2).mode(0o755).set_mode_file_type(ModeFileType::Directory), &[]);
    }
    let console = Builder::new("dev/console").mode(0o600).set_mode_file_type(ModeFileType::Char);
    add(console.rdev_major(5).rdev_minor(1), &[]);
    let program = |path| Builder::new(path).mode(0o755).set_mode_file_type(ModeFileType::Regular);
    add(program("bin/busybox"), &std::fs::read("/bin/busybox").unwrap());
    add(program("init"), b"#!/bin/busybox sh\necho up\nexec /bin/busybox sleep 1000\n");
    trailer(&mut out).unwrap();
    out
}

/// The guest's programs as they run in a VM, here in namespaces of this host.
async fn guest_memory(report: &mut Report) {
    let mut node = Node::with_guests(|_| {}).await;
    let (pod, shim) = (Pod::new(1).await, node.shim());
    shim.create("memory", &pod.path).await.unwrap();
    shim.start("memory").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let group = "Memory in the VM";
    let guest = Footprint::of(process_of("peerpods-guest"));
    let resident = Value::single(Unit::MiB, mib(guest.rss_kib));
    report.row(
        Row::new(group, "the guest's daemon, resident, one pod", resident)
            .aim(Aim::at_most(&resident, 8.0))
            .upstream("33 MB"),
    );
    report.row(Row::new(group, "  of it: its own pages", Value::single(Unit::MiB, mib(guest.private_kib))));
    let agent = Footprint::of(process_of("miniagent"));
    report.row(Row::new(group, "miniagent, resident", Value::single(Unit::MiB, mib(agent.rss_kib))));
    shim.stop("memory").await.unwrap();
    node.assert_nothing_left().await;
    node.shut_down().await;
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// The process whose program has this file name.
fn process_of(program: &str) -> u32 {
    let lines = processes_naming(program);
    let mut own = lines.iter().filter_map(|line| line.strip_prefix("process ")?.split_once(": "));
    let found = own.find(|(_, line)| {
        let first = line.split(' ').next().unwrap_or_default();
        Path::new(first).file_name().is_some_and(|name| name == program)
    });
    found.unwrap_or_else(|| panic!("no {program} in {lines:#?}")).0.parse().unwrap()
}
