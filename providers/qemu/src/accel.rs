//! KVM or TCG: decided by what a guest really does, not by a device file that exists.
//!
//! A `/dev/kvm` may be there and useless: on a host without `vmx` or `svm` a guest runs a hundred times slower than under TCG, or
//! stops for good. So: without either flag it is TCG at once; else the image's kernel is booted under KVM without an initramfs and
//! has to get as far as complaining that it finds no root file system.

use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use crate::image::Image;
use crate::record::private_file;

/// What a kernel without a root file system says once it has set up everything else.
const PROOF: &[u8] = b"Kernel panic - not syncing: VFS";
/// How long a kernel may take to say it. Under a KVM that works it is well under a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of console output looked at.
const MAX_OUTPUT: usize = 1 << 20;

/// What a guest's instructions are run by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// An accelerator and why it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// What guests run on.
    pub accelerator: Accelerator,
    /// Why, for a log line.
    pub reason: String,
}

impl Choice {
    pub(crate) fn kvm(reason: impl Into<String>) -> Self {
        Self { accelerator: Accelerator::Kvm, reason: reason.into() }
    }

    pub(crate) fn tcg(reason: impl Into<String>) -> Self {
        Self { accelerator: Accelerator::Tcg, reason: reason.into() }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.accelerator {
            Accelerator::Kvm => "KVM",
            Accelerator::Tcg => "TCG",
        };
        write!(f, "guests run on {name}: {}", self.reason)
    }
}

/// What can be said without booting anything: `Some` when the answer is TCG already.
#[must_use]
pub fn hopeless(cpuinfo: &str, kvm_device: bool) -> Option<Choice> {
    let flags =
        cpuinfo.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == "flags");
    let able = flags.is_some_and(|(_, words)| words.split_whitespace().any(|w| w == "vmx" || w == "svm"));
    if !able {
        return Some(Choice::tcg("the processor shows neither vmx nor svm (/proc/cpuinfo)"));
    }
    (!kvm_device).then(|| Choice::tcg("there is no /dev/kvm"))
}

/// [`hopeless`] of this host.
#[must_use]
pub fn hopeless_here() -> Option<Choice> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    hopeless(&cpuinfo, Path::new("/dev/kvm").exists())
}

/// Boots the image's kernel under KVM and looks how far it gets. At most some ten seconds; dropping the future ends the guest.
pub async fn probe(program: &Path, image: &Image) -> Choice {
    let mut child = match start(program, image) {
        Ok(child) => child,
        Err(error) => {
            return Choice::tcg(format!("the KVM probe could not start {}: {error}", program.display()));
        }
    };
    let seen = tokio::time::timeout(PATIENCE, proof(&mut child)).await;
    let choice = match seen {
        Ok(true) => Choice::kvm("a probe guest booted on it"),
        Ok(false) => {
            Choice::tcg(format!("a probe guest did not boot under KVM: {}", complaint(&mut child).await))
        }
        Err(_) => Choice::tcg(format!("a probe guest did not boot under KVM within {PATIENCE:?}")),
    };
    // `kill_on_drop` would do it too; this also reaps.
    let _ = child.kill().await;
    choice
}

fn start(program: &Path, image: &Image) -> std::io::Result<Child> {
    let mut command = Command::new(program);
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    command.args(["-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256"]);
    command.arg("-kernel").arg(image.kernel()).args(["-append", "console=ttyS0 panic=-1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn()
}

/// Reads the console until the proof comes or the guest ends.
async fn proof(child: &mut Child) -> bool {
    let Some(mut console) = child.stdout.take() else { return false };
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    while seen.len() < MAX_OUTPUT {
        match console.read(&mut chunk).await {
            Ok(0) | Err(_) => return false,
            Ok(read) => seen.extend_from_slice(chunk.get(..read).unwrap_or_default()),
        }
        if seen.windows(PROOF.len()).any(|window| window == PROOF) {
            return true;
        }
    }
    false
}

/// What QEMU said on its standard error, in one line.
async fn complaint(child: &mut Child) -> String {
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = tokio::time::timeout(Duration::from_secs(1), stderr.take(4096).read_to_end(&mut said)).await;
    }
    match one_line(&said) {
        text if text.is_empty() => "it ended without a word".to_owned(),
        text => text,
    }
}

/// The last line a program said, which is as a rule the one that matters.
pub(crate) fn one_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    last.chars().take(400).collect()
}

/// A probe's result, kept until something it depends on changes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cached {
    boot_id: String,
    qemu: String,
    kernel: String,
    choice: Choice,
}

/// What a probe's result depends on.
#[derive(Debug, Clone)]
pub(crate) struct Basis {
    pub(crate) boot_id: String,
    pub(crate) qemu: String,
    pub(crate) kernel: String,
}

/// The result kept at `path`, if it is of this basis.
pub(crate) fn recall(path: &Path, basis: &Basis) -> Option<Choice> {
    let cached: Cached = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let same = cached.boot_id == basis.boot_id && cached.qemu == basis.qemu && cached.kernel == basis.kernel;
    same.then_some(cached.choice)
}

/// Keeps a result. A result that cannot be kept is probed for again, so a failure is only worth a line in the log.
pub(crate) fn keep(path: &Path, basis: &Basis, choice: &Choice) -> std::io::Result<()> {
    let Basis { boot_id, qemu, kernel } = basis.clone();
    let bytes = serde_json::to_vec(&Cached { boot_id, qemu, kernel, choice: choice.clone() })?;
    std::io::Write::write_all(&mut private_file(path)?, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_vmx_or_svm_or_a_device_it_is_tcg_at_once() {
        let with =
            |flags: &str| format!("processor\t: 0\nmodel name\t: svm vmx\nflags\t\t: fpu {flags} sse\n");
        assert!(hopeless(&with("hypervisor"), true).unwrap().reason.contains("neither vmx nor svm"));
        assert!(hopeless(&with("vmxish"), true).is_some() && hopeless("", true).is_some());
        assert!(hopeless(&with("svm"), false).unwrap().reason.contains("/dev/kvm"));
        assert_eq!(hopeless(&with("vmx"), true), None);
    }

    #[test]
    fn a_result_is_recalled_only_on_the_same_basis() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accel.json");
        let basis = Basis { boot_id: "b".into(), qemu: "10.0.2".into(), kernel: "k".into() };
        assert_eq!(recall(&path, &basis), None);
        keep(&path, &basis, &Choice::tcg("why")).unwrap();
        assert_eq!(recall(&path, &basis), Some(Choice::tcg("why")));
        assert_eq!(recall(&path, &Basis { boot_id: "c".into(), ..basis.clone() }), None);
        assert_eq!(recall(&path, &Basis { kernel: "l".into(), ..basis }), None);
    }

    #[test]
    fn the_last_line_is_the_one_that_matters() {
        assert_eq!(one_line(b"warning: x\nqemu: fatal\n\n"), "qemu: fatal");
        assert_eq!(one_line(b""), "");
    }
}
