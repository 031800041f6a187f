//! Carries a plan about a PeerPod out: its VM is deleted, or what keeps it is told.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::api::{Api, DeleteParams, Preconditions};
use kube::{Client, ResourceExt};
use peerpods_crds::{PEERPOD_FINALIZER, PeerPod, PeerPodStatus};
use peerpods_podvm::ClusterId;
use peerpods_podvm::causes::chain;
use peerpods_provider::{Provider, ProviderError, VmKey};
use tokio::time::{Instant, timeout};

use super::clouds::{Cloud, CloudError, Clouds};
use super::decide::{FORGET, NoVm, Step, Vm};
use super::metrics::{Found, Metrics};
use super::world::{Node, Sibling, World};
use crate::reconciled::{self, Finalizer, Note, Teller, WriteError};

/// How long one try of a deletion may take: providers answer when the VM is gone. The next try goes on from there.
const DELETED_WITHIN: Duration = Duration::from_secs(120);
/// Until the next try after a failure, first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How soon a node that alone can delete a VM is looked at again.
const LOOK: Duration = Duration::from_secs(60);
/// The provider whose VMs are processes of their node: nobody else reaches them, and they end with it.
const AT_NODES: &str = "qemu";

/// Why a VM is still there.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Nobody can be asked.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// The provider said no.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// It did not answer.
    #[error("{provider} did not confirm the deletion within {DELETED_WITHIN:?}")]
    NoAnswer {
        /// Which.
        provider: &'static str,
    },
    /// The settings are those of another cloud.
    #[error(
        "the VM is at {at}, and the settings (CLOUD_PROVIDER, region) say {now}: set them back until the VM is gone, or delete the VM by \
         hand and annotate the PeerPod with {FORGET}=true"
    )]
    OtherCloud {
        /// Where the VM is.
        at: String,
        /// Who can be asked.
        now: String,
    },
    /// Another program made it.
    #[error(
        "no VM with our tags has the id {id}, so another program made it, or it is gone: see that it is deleted, then annotate \
         the PeerPod with {FORGET}=true"
    )]
    NotOurs {
        /// The provider's id.
        id: String,
    },
}

impl Trouble {
    fn label(&self) -> &'static str {
        match self {
            Self::Provider(error) => error.kind.label(),
            Self::NoAnswer { .. } => "transient",
            Self::Cloud(_) | Self::OtherCloud { .. } => "settings",
            Self::NotOurs { .. } => "not_found",
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Provider(error) => error.retry_after,
            _ => None,
        }
    }
}

/// What deletions are made with.
pub struct Hands {
    /// The API server.
    pub client: Client,
    /// The clouds.
    pub clouds: Clouds,
    /// The owner of VMs whose PeerPods do not say.
    pub cluster: ClusterId,
    /// What is counted.
    pub metrics: Metrics,
    /// Who tells Events.
    pub teller: Teller,
    /// When a deletion that failed is tried again, by the PeerPod's UID: what is written about a failure wakes us up at once.
    pub pauses: Pauses,
}

/// Deletions that wait for their next try.
#[derive(Debug, Default)]
pub struct Pauses(Mutex<HashMap<String, Instant>>);

impl Pauses {
    /// Everything is tried at once: the settings are others.
    pub fn forget(&self) {
        self.lock().clear();
    }

    fn left(&self, peer_pod: &PeerPod) -> Option<Duration> {
        let next = *self.lock().get(&peer_pod.uid()?)?;
        Some(next.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    fn until(&self, peer_pod: &PeerPod, pause: Option<Duration>) {
        let Some(uid) = peer_pod.uid() else { return };
        match pause {
            Some(pause) => drop(self.lock().insert(uid, Instant::now() + pause)),
            None => drop(self.lock().remove(&uid)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries out one step; answers when to look again.
///
/// # Errors
/// What the API server said. What a provider said is told on the PeerPod and tried again.
pub async fn act(hands: &Hands, world: &World, step: &Step) -> Result<Option<Duration>, WriteError> {
    let peer_pod = &world.peer_pod;
    let api: Api<PeerPod> = Api::namespaced(hands.client.clone(), &peer_pod.namespace().unwrap_or_default());
    match step {
        Step::Wait => Ok(None),
        Step::Guard => {
            reconciled::finalizer(&api, peer_pod, PEERPOD_FINALIZER, Finalizer::There).await.map(|()| None)
        }
        Step::Retire(older) => {
            for one in older {
                retire(&api, one).await?;
                let text = format!("{} is on its way out: its pod has this newer VM", one.name);
                hands.teller.tell(peer_pod, vec![note(false, "OlderVMRetired", text)]).await;
            }
            Ok(None)
        }
        Step::Release(why) => {
            let text = match why {
                NoVm::NeverMade => "no VM was ever asked for".to_owned(),
                NoVm::Forgotten => format!("its VM is somebody else's affair: {FORGET} is set"),
            };
            release(hands, &api, peer_pod).await?;
            hands.teller.tell(peer_pod, vec![note(false, "Released", text)]).await;
            Ok(None)
        }
        Step::LeaveToItsNode => left_to_its_node(hands, &api, peer_pod).await.map(Some),
        Step::Collect(vm) => collect(hands, &api, world, vm).await,
    }
}

async fn collect(
    hands: &Hands,
    api: &Api<PeerPod>,
    world: &World,
    vm: &Vm,
) -> Result<Option<Duration>, WriteError> {
    let peer_pod = &world.peer_pod;
    if let Some(left) = hands.pauses.left(peer_pod) {
        return Ok(Some(left));
    }
    match delete(hands, world, vm).await {
        Ok(Deleted::Confirmed) => {
            release(hands, api, peer_pod).await?;
            hands.metrics.deleted(Found::PeerPod);
            let text = format!("{} was deleted", named(peer_pod));
            hands.teller.tell(peer_pod, vec![note(false, "VMDeleted", text)]).await;
            Ok(None)
        }
        Ok(Deleted::AtItsNode) => release(hands, api, peer_pod).await.map(|()| None),
        Ok(Deleted::NotYet(again)) => Ok(Some(again)),
        Ok(Deleted::ByItsNodeOnly) => left_to_its_node(hands, api, peer_pod).await.map(Some),
        Err(trouble) => failed(hands, api, peer_pod, &trouble).await.map(Some),
    }
}

enum Deleted {
    /// The provider says that there is none.
    Confirmed,
    /// It was on a node that is gone.
    AtItsNode,
    /// It may still turn up.
    NotYet(Duration),
    /// It is on a node that is part of the cluster.
    ByItsNodeOnly,
}

async fn delete(hands: &Hands, world: &World, vm: &Vm) -> Result<Deleted, Trouble> {
    let at = world.peer_pod.spec.cloud_provider.as_str();
    let by_its_node = if world.node == Node::Gone { Deleted::AtItsNode } else { Deleted::ByItsNodeOnly };
    if at == AT_NODES {
        return Ok(by_its_node);
    }
    let cloud = hands.clouds.now().await?;
    let Some(provider) = &cloud.provider else {
        return match at {
            "" => Ok(by_its_node),
            at => Err(Trouble::OtherCloud { at: at.to_owned(), now: AT_NODES.to_owned() }),
        };
    };
    if !at.is_empty() && at != provider.name() {
        return Err(Trouble::OtherCloud { at: at.to_owned(), now: provider.name().to_owned() });
    }
    let deleting = async {
        // Another region has no such VM, which is no proof that there is none.
        let regions = world.peer_pod.spec.location.as_ref().zip(provider.location().await);
        if let Some((at, now)) = regions.filter(|(at, now)| *at != now) {
            let name = provider.name();
            return Err(Trouble::OtherCloud {
                at: format!("{name} in {at}"),
                now: format!("{name} in {now}"),
            });
        }
        let key = match vm {
            Vm::Key(key) => key.clone(),
            Vm::Id(id) => key_of(provider.as_ref(), &cloud, hands, id).await?,
        };
        Ok::<_, Trouble>(provider.delete(&key).await?)
    };
    match timeout(DELETED_WITHIN, deleting).await {
        Ok(deleted) => deleted?,
        Err(_) => return Err(Trouble::NoAnswer { provider: provider.name() }),
    }
    Ok(may_turn_up(&world.peer_pod, provider.visible_within()).map_or(Deleted::Confirmed, Deleted::NotYet))
}

async fn key_of(provider: &dyn Provider, cloud: &Cloud, hands: &Hands, id: &str) -> Result<VmKey, Trouble> {
    let cluster = cloud.cluster.as_ref().unwrap_or(&hands.cluster);
    let all = provider.list(cluster).await?;
    let found = all.into_iter().find(|(_, instance)| instance.id == id);
    found.map(|(key, _)| key).ok_or_else(|| Trouble::NotOurs { id: id.to_owned() })
}

/// For how long a VM whose making never ended may still appear: its node may have asked for it until its pod was gone.
fn may_turn_up(peer_pod: &PeerPod, visible_within: Duration) -> Option<Duration> {
    let since =
        peer_pod.metadata.deletion_timestamp.as_ref().filter(|_| peer_pod.spec.instance_id.is_empty())?;
    let gone_for: Duration = jiff::Timestamp::now().duration_since(since.0).try_into().unwrap_or_default();
    Some(visible_within.saturating_sub(gone_for)).filter(|left| !left.is_zero())
}

/// With a precondition: another PeerPod of the same name is none of ours.
async fn retire(api: &Api<PeerPod>, older: &Sibling) -> Result<(), WriteError> {
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: older.uid.clone(), resource_version: None }),
        ..DeleteParams::background()
    };
    match api.delete(&older.name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(source) => Err(WriteError::Refused {
            part: "end",
            kind: "PeerPod".to_owned(),
            name: older.name.clone(),
            source,
        }),
    }
}

/// Lets a PeerPod go. Where others hold it still, it says that its VM is gone.
async fn release(hands: &Hands, api: &Api<PeerPod>, peer_pod: &PeerPod) -> Result<(), WriteError> {
    if peer_pod.finalizers().len() > 1 {
        let status = PeerPodStatus { cleand: true, tries: None, last_error: None };
        reconciled::status(api, peer_pod, &status).await?;
    }
    reconciled::finalizer(api, peer_pod, PEERPOD_FINALIZER, Finalizer::Gone).await?;
    hands.pauses.until(peer_pod, None);
    tracing::info!(peer_pod = peer_pod.name_any(), vm = named(peer_pod), cluster = %hands.cluster, "let go");
    Ok(())
}

/// Says once whom the VM waits for, and what to do when they never come back.
async fn left_to_its_node(
    hands: &Hands,
    api: &Api<PeerPod>,
    peer_pod: &PeerPod,
) -> Result<Duration, WriteError> {
    let node = peer_pod.spec.node_name.as_deref().unwrap_or("unknown");
    let text = format!(
        "it is left to the service of node {node}, which alone knows whether it is in use: see that the service works there, or delete \
         the Node when it never comes back, or annotate the PeerPod with {FORGET}=true"
    );
    let before = peer_pod.status.clone().unwrap_or_default();
    if before.last_error.as_ref() != Some(&text) {
        let status = PeerPodStatus { cleand: false, last_error: Some(text.clone()), ..before };
        reconciled::status(api, peer_pod, &status).await?;
        let text = format!("{} is not deleted: {text}", named(peer_pod));
        hands.teller.tell(peer_pod, vec![note(true, "VMNotDeleted", text)]).await;
    }
    Ok(LOOK)
}

async fn failed(
    hands: &Hands,
    api: &Api<PeerPod>,
    peer_pod: &PeerPod,
    trouble: &Trouble,
) -> Result<Duration, WriteError> {
    let tries =
        peer_pod.status.as_ref().and_then(|status| status.tries).unwrap_or_default().saturating_add(1);
    let text = chain(trouble);
    let pause = pause(tries, trouble.retry_after());
    hands.pauses.until(peer_pod, Some(pause));
    tracing::warn!(
        peer_pod = peer_pod.name_any(),
        vm = named(peer_pod),
        tries,
        error = text,
        "the VM is not deleted"
    );
    hands.metrics.failed(trouble.label());
    let status = PeerPodStatus { cleand: false, tries: Some(tries), last_error: Some(text.clone()) };
    reconciled::status(api, peer_pod, &status).await?;
    let text = format!("{} is not deleted and goes on costing money: {text}", named(peer_pod));
    hands.teller.tell(peer_pod, vec![note(true, "VMNotDeleted", text)]).await;
    Ok(pause)
}

fn pause(tries: i32, asked: Option<Duration>) -> Duration {
    let doublings = u32::try_from(tries.saturating_sub(1)).unwrap_or_default().min(16);
    let own = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
    asked.map_or(own, |asked| asked.max(own))
}

fn named(peer_pod: &PeerPod) -> String {
    let spec = &peer_pod.spec;
    match (spec.instance_id.as_str(), &spec.sandbox_id) {
        ("", Some(sandbox)) => format!("the VM of sandbox {sandbox}"),
        (id, _) => format!("VM {id}"),
    }
}

fn note(warning: bool, reason: &str, text: String) -> Note {
    Note { warning, reason: reason.to_owned(), text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_a_provider_may_ask_for_longer_ones() {
        for (tries, asked, seconds) in [
            (1, None, 5),
            (2, None, 10),
            (7, None, 300),
            (i32::MAX, None, 300),
            (1, Some(60), 60),
            (9, Some(60), 300),
        ] {
            let asked = asked.map(Duration::from_secs);
            assert_eq!(pause(tries, asked), Duration::from_secs(seconds), "{tries} {asked:?}");
        }
    }
}
