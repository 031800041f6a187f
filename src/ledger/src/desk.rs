//! Keeps the cluster's record of each VM as it is wanted, however long the API server is away: one task a VM, level-triggered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use peerpods_hypervisor::ledger::{Claim, Ledger};
use peerpods_podvm::causes::chain;
use peerpods_provider::{Instance, VmKey};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::decide::{Pod, Wanted};
use crate::write::write;

/// How long a pod waits for its VM to be recorded.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long one look may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Between two tries, first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// VMs that are looked at together: a service that comes back with a thousand asks for them in turn.
const AT_ONCE: usize = 8;

/// Where VMs are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// This node's name in the cluster.
    pub node: String,
    /// The provider's name.
    pub provider: String,
}

/// The ledger of a node: PeerPods.
#[derive(Clone)]
pub struct PeerPodLedger(Arc<Shared>);

struct Shared {
    client: Client,
    place: Place,
    desks: Mutex<HashMap<VmKey, Desk>>,
    turns: Semaphore,
}

/// What is wanted of a VM, and what was last written.
#[derive(Clone)]
struct Desk {
    wanted: Arc<watch::Sender<Wanted>>,
    written: watch::Receiver<Option<Wanted>>,
}

impl PeerPodLedger {
    /// One that asks this API server. Must be made and used in a tokio runtime.
    #[must_use]
    pub fn new(client: Client, place: Place) -> Self {
        let desks = Mutex::default();
        Self(Arc::new(Shared { client, place, desks, turns: Semaphore::new(AT_ONCE) }))
    }

    /// Says what is wanted of a VM from now on.
    fn want(&self, key: &VmKey, wanted: impl FnOnce(Option<&Wanted>) -> Wanted) -> Desk {
        let mut desks = self.0.lock();
        if let Some(desk) = desks.get(key) {
            desk.wanted.send_modify(|now| *now = wanted(Some(now)));
            return desk.clone();
        }
        let (sender, receiver) = watch::channel(wanted(None));
        let (written, seen) = watch::channel(None);
        let desk = Desk { wanted: Arc::new(sender), written: seen };
        desks.insert(key.clone(), desk.clone());
        drop(desks);
        tokio::spawn(keep(self.0.clone(), key.clone(), receiver, written));
        desk
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<VmKey, Desk>> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing is left to be done about a VM. Nobody can want something else meanwhile.
    fn is_over(&self, key: &VmKey, wanted: &watch::Receiver<Wanted>) -> bool {
        let mut desks = self.lock();
        let over = matches!(*wanted.borrow(), Wanted::Gone { .. });
        if over {
            desks.remove(key);
        }
        over
    }
}

/// Writes what is wanted until the VM is gone.
async fn keep(
    shared: Arc<Shared>,
    key: VmKey,
    mut wanted: watch::Receiver<Wanted>,
    written: watch::Sender<Option<Wanted>>,
) {
    let mut tries = 0_u32;
    loop {
        let now = wanted.borrow_and_update().clone();
        match once(&shared, &key, &now).await {
            Ok(()) => {
                tries = 0;
                written.send_replace(Some(now));
                if shared.is_over(&key, &wanted) || wanted.changed().await.is_err() {
                    return;
                }
            }
            Err(why) => {
                tries = tries.saturating_add(1);
                let pause = pause(tries);
                tracing::warn!(sandbox = %key.sandbox, error = why, tries, "the cluster's record of a VM is not written; tried again in {pause:.1?}");
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = wanted.changed() => {}
                }
            }
        }
    }
}

async fn once(shared: &Shared, key: &VmKey, wanted: &Wanted) -> Result<(), String> {
    let _turn = shared.turns.acquire().await.map_err(|closed| closed.to_string())?;
    match timeout(ANSWER_WITHIN, write(&shared.client, &shared.place, key, wanted)).await {
        Ok(done) => done.map_err(|error| chain(&error)),
        Err(_) => Err(format!("no answer within {ANSWER_WITHIN:?}")),
    }
}

/// Nodes that lost the same API server do not come back to it in step.
fn pause(tries: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(LONGEST_PAUSE);
    doubled.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// Waits until what is wanted is written, for [`PATIENCE`] at most.
async fn settled(mut desk: Desk, wanted: &Wanted) {
    // Ends with an error when the VM is gone and the task with it, which is as good.
    let waiting = desk.written.wait_for(|written| written.as_ref() == Some(wanted));
    let _ = timeout(PATIENCE, waiting).await;
}

fn pod(claim: Claim<'_>) -> Pod {
    let since = i64::try_from(claim.since_unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    Pod {
        namespace: claim.pod_namespace.to_owned(),
        name: claim.pod_name.to_owned(),
        location: claim.location.map(str::to_owned),
        since: since.map(MicroTime),
    }
}

#[async_trait]
impl Ledger for PeerPodLedger {
    async fn intend(&self, key: &VmKey, claim: Claim<'_>) {
        let wanted = Wanted::Owned { pod: pod(claim), instance: None };
        let desk = self.want(key, |_| wanted.clone());
        settled(desk, &wanted).await;
    }

    async fn assign(&self, key: &VmKey, instance: &Instance) {
        let known = self.0.lock().contains_key(key);
        if known {
            self.want(key, |now| match now {
                Some(Wanted::Owned { pod, .. }) => {
                    Wanted::Owned { pod: pod.clone(), instance: Some(instance.id.clone()) }
                }
                other => other.cloned().unwrap_or(Wanted::Gone { pod: None }),
            });
        }
    }

    async fn release(&self, key: &VmKey) {
        let desk = self.want(key, |now| match now {
            Some(Wanted::Owned { pod, .. }) => Wanted::Gone { pod: Some(pod.clone()) },
            Some(Wanted::Gone { pod }) => Wanted::Gone { pod: pod.clone() },
            None => Wanted::Gone { pod: None },
        });
        let wanted = desk.wanted.borrow().clone();
        settled(desk, &wanted).await;
    }

    async fn recall(&self, key: &VmKey, claim: Claim<'_>, instance: Option<&str>) {
        let pod = pod(claim);
        self.want(key, |_| Wanted::Owned { pod, instance: instance.map(str::to_owned) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_are_not_all_the_same() {
        for (tries, most) in [(1, 500), (2, 1000), (7, 30_000), (u32::MAX, 30_000)] {
            for _ in 0..20 {
                let pause = pause(tries);
                let most = Duration::from_millis(most);
                assert!(pause <= most && pause >= most / 2, "{tries}: {pause:?}");
            }
        }
    }
}
