//! From the start of a command to its first output in a new pod VM, against QEMU alone with a kernel and a busybox shell; and what the
//! guest's daemon takes of memory.
//!
//! `BENCH_RUNS` sets the number of pairs (5).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark fails by panicking")]

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cpio::newc::{Builder, ModeFileType, trailer};
use peerpods_podvm::image::{DESCRIPTION, KERNEL, QemuImage};
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
    let bare = Bare::new();
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
            "`peerpods sandbox run -- echo up`, exec to \"up\"",
            ours,
        )
        .against("QEMU alone, same kernel, a busybox shell says \"up\"", alone)
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

/// QEMU with the image's kernel and arguments, and an initramfs that holds a shell.
struct Bare {
    dir: TempDir,
    image: PathBuf,
    arguments: String,
}

impl Bare {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = image();
        let description: QemuImage =
            serde_json::from_slice(&std::fs::read(image.join(DESCRIPTION)).unwrap()).unwrap();
        std::fs::write(dir.path().join("initramfs"), initramfs()).unwrap();
        // What the provider adds under emulation.
        let arguments = format!("{} nokaslr mitigations=off", description.kernel_arguments.join(" "));
        Self { dir, image, arguments }
    }

    /// From exec to the shell's line on the console.
    fn boot(&self) -> Duration {
        let console = self.dir.path().join("console");
        drop(std::fs::remove_file(&console));
        let began = Instant::now();
        let mut qemu = Command::new("qemu-system-x86_64")
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35"])
            .args(["-accel", "tcg", "-cpu", "max", "-m", "256", "-kernel"])
            .arg(self.image.join(KERNEL))
            .arg("-initrd")
            .arg(self.dir.path().join("initramfs"))
            .args(["-append", &self.arguments, "-serial"])
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
