//! What starts found out about the network to VMs. Pure but for its lock; the clock is told.
//!
//! How large a pod's packets may be is told to a VM before it is made, and where it will be is not known then. So a lesson holds for any
//! new VM, but only for a while: one VM behind a bad path must not slow this node's pods down for good.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

/// How long a lesson holds. Long enough for the pod that learned it to be started again.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How many networks are remembered; the oldest lesson goes.
const NETWORKS: usize = 64;
/// Never so little that no pod could live on it (RFC 791's smallest reassembly buffer).
const LEAST: u32 = 576;

/// What a start came to grief over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lesson {
    /// Where the VM was.
    pub(crate) network: IpNet,
    /// The largest packet that passed, in bytes.
    pub(crate) carried: u32,
    /// The VM that taught it.
    pub(crate) vm: String,
    at: Instant,
}

/// The last lesson of each network. Not kept over a restart.
#[derive(Debug, Default)]
pub(crate) struct PathMtu(Mutex<BTreeMap<IpNet, Lesson>>);

impl PathMtu {
    /// A later lesson of the same network replaces the earlier one.
    pub(crate) fn learn(&self, remote: IpAddr, carried: u32, vm: &str, now: Instant) {
        let network = network_of(remote);
        let lesson = Lesson { network, carried: carried.max(LEAST), vm: vm.to_owned(), at: now };
        let mut lessons = self.lock();
        lessons.insert(network, lesson);
        if lessons.len() > NETWORKS {
            let oldest = lessons.values().min_by_key(|lesson| lesson.at).map(|lesson| lesson.network);
            oldest.map(|oldest| lessons.remove(&oldest));
        }
    }

    /// The smallest of what was learned lately.
    pub(crate) fn smallest(&self, now: Instant) -> Option<Lesson> {
        let mut lessons = self.lock();
        lessons.retain(|_, lesson| now.saturating_duration_since(lesson.at) < REMEMBERED);
        lessons.values().min_by_key(|lesson| lesson.carried).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpNet, Lesson>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The /24 or /64 an address is in: what a cloud's subnet is at least, as a rule.
fn network_of(address: IpAddr) -> IpNet {
    let address = address.to_canonical();
    let length = if address.is_ipv4() { 24 } else { 64 };
    IpNet::new(address, length).map_or_else(|_| address.into(), |net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lesson_holds_for_ten_minutes_and_is_replaced_by_a_later_one_of_its_network() {
        let (known, start) = (PathMtu::default(), Instant::now());
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let smallest =
            |minutes| known.smallest(at(minutes)).map(|l| (l.network.to_string(), l.carried, l.vm));
        assert_eq!(smallest(0), None);
        // minute, VM's address, carried, its name; what holds then
        let (a, b, six) = ("10.0.1.0/24", "10.0.2.0/24", "fd00:1::/64");
        for (minute, remote, carried, vm, expected) in [
            (0, "10.0.1.7", 1400, "one", (a, 1400, "one")),
            (1, "10.0.2.9", 1450, "two", (a, 1400, "one")),
            (2, "::ffff:10.0.1.8", 1460, "three", (b, 1450, "two")),
            (3, "fd00:1::9", 20, "four", (six, 576, "four")),
            (9, "fd00:1::77", 1480, "five", (b, 1450, "two")),
        ] {
            known.learn(remote.parse().unwrap(), carried, vm, at(minute));
            assert_eq!(smallest(minute), Some((expected.0.into(), expected.1, expected.2.into())), "{vm}");
        }
        assert_eq!(smallest(11), Some((a.into(), 1460, "three".into())), "the second network's is forgotten");
        assert_eq!(smallest(12), Some((six.into(), 1480, "five".into())));
        assert_eq!(smallest(19), None);
    }

    #[test]
    fn only_so_many_networks_are_remembered() {
        let (known, start) = (PathMtu::default(), Instant::now());
        for n in 0..=255_u8 {
            known.learn(IpAddr::from([10, 0, n, 1]), 1400, "vm", start + Duration::from_millis(n.into()));
        }
        let left = known.lock();
        assert_eq!(left.len(), NETWORKS);
        assert!(left.contains_key(&"10.0.255.0/24".parse().unwrap()), "the latest stay");
    }
}
