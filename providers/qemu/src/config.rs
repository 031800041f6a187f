//! What a node's administrator decides about VMs on this host.

use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use peerpods_provider::VmSize;
use serde::{Deserialize, Serialize};

use crate::places::MAX_SOCKET_PATH;

/// What QEMU runs guests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// KVM when a probe shows that a guest really runs on it, else TCG.
    #[default]
    Auto,
    /// KVM or nothing; not probed.
    Kvm,
    /// QEMU's own translator: needs nothing, some ten times slower.
    Tcg,
}

/// Configuration of the QEMU provider. Every field has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QemuConfig {
    /// The QEMU program: a path, or a name looked for on the PATH.
    pub program: PathBuf,
    /// What guests run on.
    pub accel: Accel,
    /// The image directory VMs boot from: `image.json` and the files it describes.
    pub image: PathBuf,
    /// A directory of further image directories. A pod's image annotation may name one of them; without it the annotation is refused.
    pub images_dir: Option<PathBuf>,
    /// Where VMs are recorded and their consoles kept. Survives a reboot.
    pub state_dir: PathBuf,
    /// Where control sockets and user data lie (secrets: must be a file system in memory).
    pub run_dir: PathBuf,
    /// The bridge VMs are connected to; made with the first VM, removed with the last. At most 15 characters.
    pub bridge: String,
    /// The VMs' IPv4 network. Its first address is the bridge's, that is the worker's as VMs see it.
    pub subnet: Ipv4Net,
    /// Virtual processors of a VM that asks for none.
    pub default_vcpus: u32,
    /// Memory of a VM that asks for none, in MiB.
    pub default_memory_mib: u64,
    /// Least memory of a VM in MiB; who asks for less gets this.
    pub min_memory_mib: u64,
    /// Most virtual processors of a VM; who asks for more is refused.
    pub max_vcpus: u32,
    /// Most memory of a VM in MiB; who asks for more is refused.
    pub max_memory_mib: u64,
    /// Size in MiB at which a VM's console file is emptied, so that a guest cannot fill the disk.
    pub console_limit_mib: u64,
}

impl Default for QemuConfig {
    fn default() -> Self {
        Self {
            program: "qemu-system-x86_64".into(),
            accel: Accel::Auto,
            image: "/var/lib/peerpod/images/qemu".into(),
            images_dir: None,
            state_dir: "/var/lib/peerpod/qemu".into(),
            run_dir: "/run/peerpod/qemu".into(),
            bridge: "ppbr0".to_owned(),
            subnet: Ipv4Net::new_assert([10, 158, 0, 0].into(), 24),
            default_vcpus: 1,
            default_memory_mib: 256,
            min_memory_mib: 128,
            max_vcpus: 64,
            max_memory_mib: 256 * 1024,
            console_limit_mib: 16,
        }
    }
}

/// A virtual processor count and memory that QEMU will be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u64,
}

impl QemuConfig {
    /// What contradicts itself in this configuration, one sentence each; empty when nothing does.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if !is_interface_name(&self.bridge) {
            faults.push(format!(
                "bridge {:?} is no interface name: use 1 to 15 of [A-Za-z0-9_.-]",
                self.bridge
            ));
        }
        if self.subnet.prefix_len() > 29 || self.subnet.prefix_len() < 8 {
            faults.push(format!("subnet {} is out of range: use a prefix length of 8 to 29", self.subnet));
        }
        if self.subnet.addr() != self.subnet.network() {
            faults.push(format!("subnet {} is no network: write {}", self.subnet, self.subnet.trunc()));
        }
        let longest = self.longest_socket_path();
        if longest > MAX_SOCKET_PATH {
            faults.push(format!(
                "run_dir {} is {} bytes too long for a unix socket in it",
                self.run_dir.display(),
                longest - MAX_SOCKET_PATH
            ));
        }
        if self.default_vcpus == 0 || self.default_vcpus > self.max_vcpus {
            faults
                .push(format!("default_vcpus {} is not within 1 to {}", self.default_vcpus, self.max_vcpus));
        }
        if !(self.min_memory_mib..=self.max_memory_mib).contains(&self.default_memory_mib) {
            faults.push(format!(
                "default_memory_mib {} is not within {} to {}",
                self.default_memory_mib, self.min_memory_mib, self.max_memory_mib
            ));
        }
        faults
    }

    fn longest_socket_path(&self) -> usize {
        absolute(&self.run_dir).as_os_str().len() + "/01234567-0123456789abcdef/qmp.sock".len()
    }

    /// What a VM gets that asks for `asked`.
    ///
    /// # Errors
    /// One sentence when it asks for more than there is.
    pub(crate) fn size(&self, asked: VmSize) -> Result<Size, String> {
        if asked.gpus > 0 {
            return Err(format!("{} GPUs were asked for; this host gives none to VMs", asked.gpus));
        }
        let vcpus = if asked.vcpus == 0 { self.default_vcpus } else { asked.vcpus };
        if vcpus > self.max_vcpus {
            return Err(format!("{vcpus} vCPUs were asked for; at most {} are allowed", self.max_vcpus));
        }
        let memory = if asked.memory_mib == 0 { self.default_memory_mib } else { asked.memory_mib };
        if memory > self.max_memory_mib {
            return Err(format!("{memory} MiB were asked for; at most {} are allowed", self.max_memory_mib));
        }
        Ok(Size { vcpus, memory_mib: memory.max(self.min_memory_mib) })
    }
}

fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// The path made absolute without asking the file system; QEMU changes its directory when it detaches.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_contradict_nothing() {
        assert_eq!(QemuConfig::default().faults(), Vec::<String>::new());
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let config = QemuConfig {
            bridge: "a-name-that-is-too-long".to_owned(),
            subnet: "10.0.0.1/30".parse().unwrap(),
            run_dir: format!("/run/{}", "x".repeat(100)).into(),
            default_vcpus: 0,
            default_memory_mib: 1,
            ..QemuConfig::default()
        };
        assert_eq!(config.faults().len(), 6, "{:?}", config.faults());
    }

    #[test]
    fn zero_means_the_default_and_little_means_the_least() {
        let config = QemuConfig::default();
        assert_eq!(config.size(VmSize::default()), Ok(Size { vcpus: 1, memory_mib: 256 }));
        let small = VmSize { vcpus: 2, memory_mib: 1, gpus: 0 };
        assert_eq!(config.size(small), Ok(Size { vcpus: 2, memory_mib: 128 }));
        for too_much in [
            VmSize { vcpus: 65, ..VmSize::default() },
            VmSize { memory_mib: 1 << 40, ..VmSize::default() },
            VmSize { gpus: 1, ..VmSize::default() },
        ] {
            assert!(config.size(too_much).is_err(), "{too_much:?}");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        assert!(serde_json::from_str::<QemuConfig>(r#"{"bridgee": "x"}"#).is_err());
        let partial: QemuConfig =
            serde_json::from_str(r#"{"accel": "tcg", "subnet": "10.9.0.0/16"}"#).unwrap();
        assert_eq!((partial.accel, partial.bridge.as_str()), (Accel::Tcg, "ppbr0"));
    }
}
