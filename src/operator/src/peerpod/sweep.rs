//! VMs that no PeerPod owns and whose node is gone: their node service died together with the node before it could write them down.
//!
//! A list is not one instant and a record may come late, so such a VM is deleted when two passes and a grace period have seen it. VMs of
//! nodes that are there are their own service's; VMs that name no node are left to a person. When anything could not be read, nothing
//! is decided at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use peerpods_crds::PeerPod;
use peerpods_podvm::causes::chain;
use peerpods_provider::{Instance, NODE_TAG, Provider, ProviderError, VmKey};
use tokio::time::{Instant, sleep, timeout};

use super::act::Hands;
use super::clouds::{Cloud, CloudError};
use super::decide::{Vm, vm};
use super::metrics::{Found, Metrics};
use super::world::Pace;

/// How long a list, or a deletion, may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);

/// A VM at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Whose it is.
    pub key: VmKey,
    /// The provider's id.
    pub id: String,
    /// The node that made it.
    pub node: Option<String>,
}

/// What owns VMs, read after they were listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners {
    /// VMs with a PeerPod, by key.
    pub keys: BTreeSet<VmKey>,
    /// VMs with a PeerPod, by the provider's id.
    pub ids: BTreeSet<String>,
    /// Nodes of the cluster.
    pub nodes: BTreeSet<String>,
}

/// VMs without an owner in earlier passes, each since when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory(BTreeMap<VmKey, Instant>);

/// What comes of a pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    /// VMs without an owner.
    pub orphans: Vec<Seen>,
    /// Those to be deleted now.
    pub delete: Vec<Seen>,
}

/// Judges every VM. A cluster without nodes decides nothing: it is one that is being restored.
#[must_use]
pub fn decide(memory: &Memory, seen: &[Seen], owners: &Owners, pace: &Pace, now: Instant) -> (Pass, Memory) {
    let mut pass = Pass::default();
    let mut next = Memory::default();
    let is_orphan = |vm: &&Seen| {
        let owned = owners.keys.contains(&vm.key) || owners.ids.contains(&vm.id);
        let lost = vm.node.as_ref().is_some_and(|node| !owners.nodes.contains(node));
        !owned && lost && !owners.nodes.is_empty()
    };
    for vm in seen.iter().filter(is_orphan) {
        let before = memory.0.get(&vm.key);
        next.0.insert(vm.key.clone(), *before.unwrap_or(&now));
        pass.orphans.push(vm.clone());
        if before.is_some_and(|since| now.saturating_duration_since(*since) >= pace.sweep_grace) {
            pass.delete.push(vm.clone());
        }
    }
    (pass, next)
}

/// Why a pass came to nothing.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Cloud(#[from] CloudError),
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error("{0} did not list the cluster's VMs within {ANSWER_WITHIN:?}")]
    NoAnswer(&'static str),
    #[error("cannot read who owns them")]
    Owners(#[source] kube::Error),
}

/// Sweeps for ever; dropped when somebody else is to.
pub async fn run(hands: &Hands, pace: &Pace) {
    let mut memory = Memory::default();
    let _until_then = Shown(&hands.metrics);
    loop {
        sleep(pace.sweep_every).await;
        match pass(hands, pace, &memory).await {
            Ok(next) => memory = next,
            Err(error) => {
                tracing::warn!(error = chain(&error), "VMs without an owner were not looked for");
            }
        }
    }
}

/// The orphans that were seen are shown as long as somebody looks.
struct Shown<'a>(&'a Metrics);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.saw_orphans(0);
    }
}

async fn pass(hands: &Hands, pace: &Pace, memory: &Memory) -> Result<Memory, SweepError> {
    let cloud = match hands.clouds.now().await {
        // A cluster that has not been told of a cloud yet.
        Err(CloudError::Unset { .. }) => Cloud { provider: None, cluster: None },
        cloud => cloud?,
    };
    let Some(provider) = cloud.provider else {
        hands.metrics.saw_orphans(0);
        return Ok(Memory::default());
    };
    let cluster = cloud.cluster.unwrap_or_else(|| hands.cluster.clone());
    let listed = timeout(ANSWER_WITHIN, provider.list(&cluster)).await;
    let listed = listed.map_err(|_| SweepError::NoAnswer(provider.name()))??;
    let seen: Vec<Seen> = listed.into_iter().map(|(key, instance)| seen(key, instance)).collect();
    let owners = owners(&hands.client).await.map_err(SweepError::Owners)?;
    let (pass, next) = decide(memory, &seen, &owners, pace, Instant::now());
    hands.metrics.saw_orphans(pass.orphans.len());
    for vm in &pass.delete {
        delete(hands, provider.as_ref(), vm).await;
    }
    Ok(next)
}

async fn delete(hands: &Hands, provider: &dyn Provider, vm: &Seen) {
    let node = vm.node.as_deref().unwrap_or_default();
    match timeout(ANSWER_WITHIN, provider.delete(&vm.key)).await {
        Ok(Ok(())) => {
            tracing::info!(vm = vm.id, key = %vm.key, node, "deleted: nobody owns it and its node is gone");
            hands.metrics.deleted(Found::Sweep);
        }
        Ok(Err(error)) => {
            hands.metrics.failed(error.kind.label());
            tracing::warn!(vm = vm.id, key = %vm.key, node, error = chain(&error), "not deleted; tried again");
        }
        Err(_) => {
            hands.metrics.failed("transient");
            tracing::warn!(vm = vm.id, key = %vm.key, node, "not deleted within {ANSWER_WITHIN:?}; tried again");
        }
    }
}

fn seen(key: VmKey, instance: Instance) -> Seen {
    Seen { key, id: instance.id, node: instance.tags.get(NODE_TAG).cloned() }
}

async fn owners(client: &Client) -> Result<Owners, kube::Error> {
    let peer_pods: Api<PeerPod> = Api::all(client.clone());
    let nodes: Api<Node> = Api::all(client.clone());
    let mut owners = Owners::default();
    for peer_pod in peer_pods.list(&ListParams::default()).await? {
        match vm(&peer_pod) {
            Some(Vm::Key(key)) => drop(owners.keys.insert(key)),
            Some(Vm::Id(id)) => drop(owners.ids.insert(id)),
            None => {}
        }
    }
    owners.nodes =
        nodes.list_metadata(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
    Ok(owners)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(sandbox: &str) -> VmKey {
        VmKey { cluster: "c".parse().unwrap(), sandbox: sandbox.parse().unwrap() }
    }

    fn at(sandbox: &str, node: Option<&str>) -> Seen {
        Seen { key: key(sandbox), id: format!("i-{sandbox}"), node: node.map(str::to_owned) }
    }

    fn owners() -> Owners {
        Owners {
            keys: [key("owned")].into(),
            ids: ["i-named".to_owned()].into(),
            nodes: ["here".to_owned()].into(),
        }
    }

    const EVERY: Duration = Duration::from_secs(60);

    fn decide(memory: &Memory, seen: &[Seen], owners: &Owners, now: Instant) -> (Pass, Memory) {
        super::decide(memory, seen, owners, &Pace::default(), now)
    }

    #[test]
    fn only_a_lost_nodes_vm_that_nobody_owns_is_an_orphan() {
        let seen = [
            at("owned", Some("gone")),
            at("named", Some("gone")),
            at("its-nodes", Some("here")),
            at("nobodys", None),
            at("orphan", Some("gone")),
        ];
        let (pass, _) = decide(&Memory::default(), &seen, &owners(), Instant::now());
        assert_eq!(pass.orphans, [at("orphan", Some("gone"))]);
        assert!(pass.delete.is_empty(), "one pass is none");
    }

    #[test]
    fn it_is_deleted_after_the_grace_period_and_only_if_it_was_an_orphan_all_the_time() {
        let seen = [at("orphan", Some("gone"))];
        let start = Instant::now();
        let (_, first) = decide(&Memory::default(), &seen, &owners(), start);
        let (early, second) = decide(&first, &seen, &owners(), start + EVERY);
        assert!(early.delete.is_empty(), "before the grace period");
        let (late, _) = decide(&second, &seen, &owners(), start + 2 * EVERY);
        assert_eq!(late.delete, seen);

        let mut meanwhile = owners();
        meanwhile.keys.insert(key("orphan"));
        let (_, owned) = decide(&first, &seen, &meanwhile, start + EVERY);
        let (again, _) = decide(&owned, &seen, &owners(), start + 2 * EVERY);
        assert!(again.delete.is_empty(), "it had an owner in between");
    }

    #[test]
    fn a_cluster_without_nodes_has_no_orphans() {
        let empty = Owners::default();
        let (pass, _) = decide(&Memory::default(), &[at("orphan", Some("gone"))], &empty, Instant::now());
        assert!(pass.orphans.is_empty());
    }
}
