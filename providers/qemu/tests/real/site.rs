//! One test's share of this machine, given back when the test ends, however it ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use ipnet::Ipv4Net;
use peerpods_provider::{UserData, VmKey, VmSize, VmSpec};
use peerpods_provider_qemu::{Accel, QemuConfig, QemuProvider};
use peerpods_test_require::Need;

/// The directory of a built image.
pub(crate) const IMAGE: &str = "PEERPODS_TEST_IMAGE";

/// What every test here needs.
pub(crate) const NEEDS: &[Need] = &[
    Need::Root,
    Need::Program("ip"),
    Need::Program("qemu-system-x86_64"),
    Need::Path("/dev/net/tun"),
    Need::Variable(IMAGE),
];

pub(crate) struct Site {
    pub(crate) config: QemuConfig,
    dir: tempfile::TempDir,
}

impl Site {
    /// A free bridge name and subnet. They differ between the tests of this process by a counter and between processes by the
    /// process id, so that two runs of the suite may meet on one machine.
    pub(crate) fn new() -> Self {
        static SITES: AtomicU8 = AtomicU8::new(0);
        let number = SITES.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let dir = tempfile::tempdir().unwrap();
        let octets = [10, 201, (process % 13 * 19) as u8 + number, 0];
        let config = QemuConfig {
            accel: Accel::Tcg,
            image: image(),
            state_dir: dir.path().join("state"),
            run_dir: dir.path().join("run"),
            bridge: format!("ppt{process:x}n{number}"),
            subnet: Ipv4Net::new(octets.into(), 24).unwrap(),
            ..QemuConfig::default()
        };
        Self { config, dir }
    }

    pub(crate) fn provider(&self) -> QemuProvider {
        QemuProvider::new(self.config.clone())
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Files of VMs, the bridge, its ports and QEMU processes that are there.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for dir in ["state/records", "state/console", "run"] {
            let entries = std::fs::read_dir(self.dir().join(dir)).into_iter().flatten().flatten();
            left.extend(entries.map(|e| e.path().display().to_string()));
        }
        if Path::new("/sys/class/net").join(&self.config.bridge).exists() {
            left.push(format!("bridge {}", self.config.bridge));
            left.extend(self.taps());
        }
        left.extend(self.processes().into_iter().map(|pid| format!("process {pid}")));
        left
    }

    /// The taps connected to the bridge.
    pub(crate) fn taps(&self) -> Vec<String> {
        let ports = Path::new("/sys/class/net").join(&self.config.bridge).join("brif");
        let entries = std::fs::read_dir(ports).into_iter().flatten().flatten();
        entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
    }

    /// QEMUs whose command line names our directory.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let ours = self.dir().display().to_string();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let numbers = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
        let line = |pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let qemus = numbers.filter(|pid| {
            let line = String::from_utf8_lossy(&line(pid)).into_owned();
            line.starts_with("qemu-system") && line.contains(&ours)
        });
        qemus.collect()
    }

    /// As `kill -9` of whatever runs.
    pub(crate) fn kill(&self) {
        for pid in self.processes() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        while !self.processes().is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.kill();
        for link in self.taps().into_iter().chain([self.config.bridge.clone()]) {
            // Mostly gone already.
            let _ = Command::new("ip").args(["link", "del", &link]).output();
        }
    }
}

pub(crate) fn image() -> PathBuf {
    std::env::var_os(IMAGE).unwrap().into()
}

pub(crate) fn key(sandbox: &str) -> VmKey {
    VmKey { cluster: "cluster".parse().unwrap(), sandbox: sandbox.parse().unwrap() }
}

pub(crate) fn spec(name: &str) -> VmSpec {
    VmSpec {
        name: name.to_owned(),
        image: None,
        machine_type: None,
        size: VmSize::default(),
        user_data: UserData::new("#cloud-config\nwrite_files: []\n"),
        tags: BTreeMap::new(),
    }
}

/// What `ip` prints.
pub(crate) fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
