//! What every driver shares: the configuration, the seams, and what there is one of on a node.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peerpods_agentlink::Link;
use peerpods_agentlink::ca::ClusterCa;
use peerpods_podnet::Tunnel;
use peerpods_podvm::{ClusterId, SandboxId};
use peerpods_provider::Provider;

use crate::capacity::Capacity;
use crate::config::Config;
use crate::failure::Failure;
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::path_mtu::PathMtu;
use crate::readiness::{Readiness, Ready};
use crate::turns::Turns;

/// The seams, filled in by whoever composes the service.
#[derive(Clone)]
pub struct Parts {
    /// Who makes VMs.
    pub provider: Arc<dyn Provider>,
    /// The worker end of the pods' tunnels.
    pub tunnel: Arc<dyn Tunnel>,
    /// The near ends of the links to the agents.
    pub link: Arc<dyn Link>,
    /// The cluster's record of VMs.
    pub ledger: Arc<dyn Ledger>,
    /// This node's memory of its sandboxes.
    pub journal: Arc<dyn Journal>,
}

/// Shared by all drivers.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) parts: Parts,
    pub(crate) readiness: Readiness,
    pub(crate) capacity: Capacity,
    pub(crate) turns: Turns,
    pub(crate) cluster: ClusterId,
    pub(crate) authority: ClusterCa,
    pub(crate) vnis: Vnis,
    pub(crate) path_mtu: PathMtu,
    pub(crate) boot_id: String,
    /// Sandboxes whose records were unreadable at start, with the tunnel's identifier where it could be made out. It is kept for them.
    pub(crate) unreadable: BTreeMap<SandboxId, Option<u32>>,
}

impl Context {
    /// What a new VM needs to know of the provider, or why there can be none: a service that has sandboxes to look after runs all the
    /// same.
    pub(crate) fn ready(&self) -> Result<Arc<Ready>, Failure> {
        self.readiness.now()
    }
}

/// VXLAN network identifiers in use. Each is kept for a sandbox's life and is in its record, so a restart hands none out twice. The
/// next one is handed out, not the lowest: the kernel takes its time to remove the devices of a namespace that is gone, and keeps
/// their identifiers until then.
#[derive(Debug)]
pub(crate) struct Vnis {
    lowest: u32,
    taken: Mutex<Taken>,
}

#[derive(Debug)]
struct Taken {
    vnis: BTreeSet<u32>,
    next: u32,
}

/// The largest VXLAN network identifier (24 bits).
const VNI_MAX: u32 = 0x00ff_ffff;

impl Vnis {
    pub(crate) fn new(lowest: u32, taken: impl IntoIterator<Item = u32>) -> Self {
        let vnis: BTreeSet<u32> = taken.into_iter().collect();
        let next = vnis.last().map_or(lowest, |last| last.saturating_add(1));
        Self { lowest, taken: Mutex::new(Taken { vnis, next }) }
    }

    /// The next free one, or `None` when all 16 million are taken.
    pub(crate) fn take(&self) -> Option<u32> {
        let mut taken = self.lock();
        let next = taken.next.max(self.lowest);
        let free = (next..=VNI_MAX).chain(self.lowest..next).find(|vni| !taken.vnis.contains(vni))?;
        taken.vnis.insert(free);
        taken.next = free + 1;
        Some(free)
    }

    /// Takes this one; false when it is taken already, or none.
    pub(crate) fn reserve(&self, vni: u32) -> bool {
        (1..=VNI_MAX).contains(&vni) && self.lock().vnis.insert(vni)
    }

    pub(crate) fn release(&self, vnis: impl IntoIterator<Item = u32>) {
        let mut taken = self.lock();
        for vni in vnis {
            taken.vnis.remove(&vni);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The id in `state_dir/cluster-id`, made at first start.
///
/// # Errors
/// When the file cannot be read or made, or holds no valid id.
pub(crate) fn cluster_id(state_dir: &Path) -> io::Result<ClusterId> {
    let path = state_dir.join("cluster-id");
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let id = uuid::Uuid::new_v4().to_string();
            let temp = state_dir.join("cluster-id.tmp");
            fs::write(&temp, format!("{id}\n"))?;
            fs::File::open(&temp)?.sync_all()?;
            fs::rename(&temp, &path)?;
            id.parse().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
        }
        Err(e) => Err(e),
    }
}

/// This boot of the node, from the kernel.
///
/// # Errors
/// When procfs is not there.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vnis_are_unique_and_come_back() {
        let vnis = Vnis::new(VNI_MAX - 3, [VNI_MAX - 2]);
        assert_eq!(vnis.take(), Some(VNI_MAX - 1));
        vnis.release([VNI_MAX - 1]);
        assert_eq!(vnis.take(), Some(VNI_MAX), "one just released is not handed out next");
        assert_eq!((vnis.take(), vnis.take(), vnis.take()), (Some(VNI_MAX - 3), Some(VNI_MAX - 1), None));
        assert_eq!(Vnis::new(VNI_MAX, [VNI_MAX]).take(), None);
        let vnis = Vnis::new(7, []);
        assert!(vnis.reserve(7) && !vnis.reserve(7) && !vnis.reserve(0) && !vnis.reserve(VNI_MAX + 1));
        assert_eq!(vnis.take(), Some(8));
    }

    #[test]
    fn the_cluster_id_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = cluster_id(dir.path()).unwrap();
        assert_eq!(cluster_id(dir.path()).unwrap(), first);
        fs::write(dir.path().join("cluster-id"), "no/id").unwrap();
        assert!(cluster_id(dir.path()).is_err());
    }
}
