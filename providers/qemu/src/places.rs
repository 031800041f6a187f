//! Names and paths of one VM's things, all derived from its key, so that they are found without any record.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use peerpods_podvm::network::MacAddr;
use peerpods_podvm::{SandboxId, naming};
use peerpods_provider::VmKey;
use sha2::{Digest, Sha256};

use crate::config::{QemuConfig, absolute};

/// The longest path of a unix socket in bytes, without the NUL.
pub(crate) const MAX_SOCKET_PATH: usize = 107;

/// What the things of one VM are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    /// Of files: the start of the sandbox id for people, a hash of the whole key for uniqueness.
    pub(crate) stem: String,
    /// Of the VM and on its process' command line.
    pub(crate) uuid: String,
    /// Of the tap device.
    pub(crate) tap: String,
    /// A number to begin the search for a free address with.
    pub(crate) seed: u64,
}

impl Names {
    /// The names of `key` in the service of these places: two services on one host share no name, whatever their keys.
    pub(crate) fn of(places: &Places, key: &VmKey) -> Self {
        // NUL is in no id and no path, so no two keys give the same text.
        let hash = Sha256::new_with_prefix(places.state().as_os_str().as_encoded_bytes())
            .chain_update(format!("\0{}\0{}", key.cluster, key.sandbox))
            .finalize();
        let mut id = [0_u8; 16];
        id.copy_from_slice(&hash[..16]);
        // Version 8 (made by a scheme of our own), variant 1: RFC 9562.
        id[6] = (id[6] & 0x0f) | 0x80;
        id[8] = (id[8] & 0x3f) | 0x80;
        let text = hex::encode(id);
        let uuid =
            format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]);
        let stem = format!("{}-{}", key.sandbox.short(), hex::encode(&hash[16..24]));
        let seed = hash[24..32].iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        Self { tap: tap_of(&stem, key), stem, uuid, seed }
    }
}

/// The tap is named by the whole key: two clusters may have sandboxes of one name on one host.
fn tap_of(stem: &str, key: &VmKey) -> String {
    // A stem has only characters of a sandbox id and is short enough for one.
    let unique: Option<SandboxId> = stem.parse().ok();
    naming::tap_name(unique.as_ref().unwrap_or(&key.sandbox))
}

/// The address a VM's (or the bridge's) Ethernet address is made of: locally administered, `p` for peerpods, the IPv4 address.
/// Neighbour tables stay right when an address is used again.
pub(crate) fn mac_of(address: Ipv4Addr) -> MacAddr {
    let [a, b, c, d] = address.octets();
    MacAddr([0x02, b'p', a, b, c, d])
}

/// Where things lie on this host.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    state: PathBuf,
    run: PathBuf,
}

impl Places {
    pub(crate) fn of(config: &QemuConfig) -> Self {
        Self { state: absolute(&config.state_dir), run: absolute(&config.run_dir) }
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    pub(crate) fn run(&self) -> &Path {
        &self.run
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    pub(crate) fn records(&self) -> PathBuf {
        self.state.join("records")
    }

    pub(crate) fn record(&self, names: &Names) -> PathBuf {
        self.records().join(format!("{}.json", names.stem))
    }

    pub(crate) fn consoles(&self) -> PathBuf {
        self.state.join("console")
    }

    pub(crate) fn console(&self, names: &Names) -> PathBuf {
        self.consoles().join(format!("{}.log", names.stem))
    }

    /// The VM's own directory in memory.
    pub(crate) fn vm(&self, names: &Names) -> PathBuf {
        self.run.join(&names.stem)
    }

    pub(crate) fn qmp(&self, names: &Names) -> PathBuf {
        self.vm(names).join("qmp.sock")
    }

    pub(crate) fn pid_file(&self, names: &Names) -> PathBuf {
        self.vm(names).join("pid")
    }

    pub(crate) fn user_data(&self, names: &Names) -> PathBuf {
        self.vm(names).join("user-data")
    }

    pub(crate) fn accel_cache(&self) -> PathBuf {
        self.run.join("accel.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(state: &str, cluster: &str, sandbox: &str) -> Names {
        let places = Places::of(&QemuConfig { state_dir: state.into(), ..QemuConfig::default() });
        Names::of(&places, &VmKey { cluster: cluster.parse().unwrap(), sandbox: sandbox.parse().unwrap() })
    }

    #[test]
    fn names_fit_and_differ_by_the_whole_key_and_the_service() {
        let id = "0123456789abcdef".repeat(4);
        let one = names("/state", "a", &id);
        assert_eq!(one, names("/state", "a", &id));
        assert!(one.tap.len() <= 15 && one.stem.len() == 25 && one.uuid.len() == 36, "{one:?}");
        for other in [names("/state", "b", &id), names("/other", "a", &id)] {
            assert!(
                one.tap != other.tap && one.stem != other.stem && one.uuid != other.uuid,
                "{one:?} {other:?}"
            );
        }
        assert_ne!(names("/state", "ab", "c").uuid, names("/state", "a", "bc").uuid);
    }

    #[test]
    fn the_socket_path_check_counts_the_path_that_is_made() {
        let path = Places::of(&QemuConfig::default()).qmp(&names("/state", "a", "0123456789"));
        assert_eq!(path.as_os_str().len(), "/run/peerpod/qemu/01234567-0123456789abcdef/qmp.sock".len());
    }

    #[test]
    fn a_mac_is_local_unicast_and_tells_the_address() {
        assert_eq!(mac_of([10, 158, 0, 2].into()).to_string(), "02:70:0a:9e:00:02");
    }
}
