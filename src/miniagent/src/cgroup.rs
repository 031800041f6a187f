//! The cgroup of a container, where the VM has cgroup version 2. Where it has none, containers run without limits or figures.
//!
//! The path a request names means something on the node, not here: ours is `containers/<container id>`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use peerpods_proto::ttrpc::oci;

use crate::convert::Cgroups;

/// Where the cgroup tree is.
const ROOT: &str = "/sys/fs/cgroup";

/// The cgroup above the containers'.
const PARENT: &str = "containers";

/// The controllers we use.
const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// Why a cgroup could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// It could not be made.
    #[error("cannot make {path:?}")]
    Make {
        /// Its directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A value could not be written.
    #[error("cannot write {value:?} to {path:?}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The value.
        value: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// What cgroups this VM offers.
#[must_use]
pub fn available() -> Cgroups {
    match statfs(ROOT) {
        Ok(found) if found.filesystem_type() == CGROUP2_SUPER_MAGIC => Cgroups::Unified,
        _ => Cgroups::None,
    }
}

/// A container's cgroup.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a container's cgroup with its limits. None where the VM has no cgroups.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub fn make(id: &str, resources: &oci::LinuxResources) -> Result<Option<Self>, CgroupError> {
        if available() == Cgroups::None {
            return Ok(None);
        }
        let parent = Path::new(ROOT).join(PARENT);
        let path = parent.join(id);
        fs::create_dir_all(&path).map_err(|source| CgroupError::Make { path: path.clone(), source })?;
        for above in [Path::new(ROOT), &parent] {
            pass_controllers_down(above);
        }
        let made = Self { path };
        made.limit(resources)?;
        Ok(Some(made))
    }

    /// Sets limits, of a new container or anew; those that are not given stay as they are.
    ///
    /// # Errors
    /// [`CgroupError::Write`].
    pub fn limit(&self, resources: &oci::LinuxResources) -> Result<(), CgroupError> {
        settings(resources).into_iter().try_for_each(|(file, value)| self.set(file, &value))
    }

    /// Puts a process, by the agent's id of it, in the cgroup; its children will be, too.
    ///
    /// # Errors
    /// [`CgroupError::Write`].
    pub fn add(&self, pid: u32) -> Result<(), CgroupError> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Kills every process in it. Kernels before 5.14 cannot; the caller signals processes by id as well.
    pub fn kill(&self) {
        let _ = self.write("cgroup.kill", "1");
    }

    /// The text of one of its files; empty where there is none.
    #[must_use]
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).unwrap_or_default()
    }

    /// Removes it. It must have no processes; one that is gone is fine.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Sets a limit, where its controller is at hand.
    fn set(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        if !self.path.join(file).exists() {
            tracing::warn!(file, value, "the VM's cgroups lack the controller for a limit; going without it");
            return Ok(());
        }
        self.write(file, value)
    }

    fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        let path = self.path.join(file);
        fs::write(&path, value).map_err(|source| CgroupError::Write { path, value: value.to_owned(), source })
    }
}

/// Removes the directory that held the containers' cgroups, when the sandbox ends.
pub fn remove_parent() {
    // It is not there where there were no containers, and stays where one could not be removed, which was logged.
    let _ = fs::remove_dir(Path::new(ROOT).join(PARENT));
}

/// One by one, because one that is missing makes the kernel refuse all of them.
fn pass_controllers_down(cgroup: &Path) {
    for controller in CONTROLLERS {
        if let Err(error) = fs::write(cgroup.join("cgroup.subtree_control"), format!("+{controller}")) {
            tracing::debug!(?cgroup, controller, %error, "controller not passed down");
        }
    }
}

/// A limit as version 2 has it; none was given when it is 0, and one below lifts it.
fn most(limit: i64) -> Option<String> {
    match limit {
        0 => None,
        ..0 => Some("max".to_owned()),
        limit => Some(limit.to_string()),
    }
}

/// The files and values for a container's limits.
fn settings(resources: &oci::LinuxResources) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    let (memory, cpu) = (&resources.Memory, &resources.CPU);
    out.extend(most(memory.Limit).map(|most| ("memory.max", most)));
    if memory.Reservation > 0 {
        out.push(("memory.low", memory.Reservation.to_string()));
    }
    // Without a period the one before stays.
    let period = if cpu.Period > 0 { format!(" {}", cpu.Period) } else { String::new() };
    out.extend(most(cpu.Quota).map(|quota| ("cpu.max", quota + &period)));
    if cpu.Shares > 0 {
        out.push(("cpu.weight", weight(cpu.Shares).to_string()));
    }
    out.extend(most(resources.Pids.Limit).map(|most| ("pids.max", most)));
    out
}

/// Version 1's shares (2 to 262144) on version 2's scale (1 to 10000), by the conversion runc and systemd use.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_files_and_values() {
        let mut asked = oci::LinuxResources::new();
        assert_eq!(settings(&asked), []);
        asked.Memory.mut_or_insert_default().Limit = 64 << 20;
        let cpu = asked.CPU.mut_or_insert_default();
        (cpu.Quota, cpu.Period, cpu.Shares) = (50_000, 100_000, 1024);
        asked.Pids.mut_or_insert_default().Limit = 7;
        let made = settings(&asked);
        assert!(made.contains(&("memory.max", "67108864".into())));
        assert!(made.contains(&("cpu.max", "50000 100000".into())));
        assert!(made.contains(&("cpu.weight", "39".into())));
        assert!(made.contains(&("pids.max", "7".into())));
        asked.Memory.mut_or_insert_default().Limit = -1;
        asked.CPU.mut_or_insert_default().Quota = -1;
        asked.Pids.mut_or_insert_default().Limit = -1;
        let lifted = settings(&asked);
        assert!(
            lifted.contains(&("memory.max", "max".into())) && lifted.contains(&("pids.max", "max".into()))
        );
        assert!(lifted.contains(&("cpu.max", "max 100000".into())));
    }

    #[test]
    fn shares_keep_within_the_scale() {
        assert_eq!((weight(0), weight(2), weight(262_144), weight(u64::MAX)), (1, 1, 10_000, 10_000));
    }
}
