//! What a benchmark ran on, for whoever compares two tables.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The machine, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's own name.
    pub cpu: String,
    /// How many processors there are.
    pub cores: usize,
    /// Memory in GiB.
    pub memory_gib: u64,
    /// The kernel's release.
    pub kernel: String,
    /// QEMU's version, when it is there.
    pub qemu: String,
    /// The commit of the checkout, with `-dirty` when it was changed.
    pub commit: String,
    /// UTC, RFC 3339.
    pub date: String,
    /// Load average of the last minute, when it began.
    pub load: String,
}

impl Machine {
    /// This one, now.
    #[must_use]
    pub fn observe() -> Self {
        let kib = field("/proc/meminfo", "MemTotal").split(' ').next().and_then(|n| n.parse::<u64>().ok());
        let version = said("qemu-system-x86_64", &["--version"]);
        Self {
            cpu: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kib.unwrap_or_default().div_ceil(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease"),
            qemu: version.lines().next().unwrap_or_default().replace("QEMU emulator version ", ""),
            commit: said("git", &["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]),
            date: said("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
            load: load(),
        }
    }
}

/// Load average of the last minute.
#[must_use]
pub fn load() -> String {
    read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The first `name: value` line's value.
fn field(path: &str, name: &str) -> String {
    let text = read(path);
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().trim_start().trim_start_matches(':').trim().to_owned()
}

/// What a program prints; empty when it is not there.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}
