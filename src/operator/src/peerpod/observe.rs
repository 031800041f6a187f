//! Reads the world of a PeerPod. No decisions.

use k8s_openapi::api::core::v1::{Node as ClusterNode, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ListParams};
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use peerpods_crds::PeerPod;

use super::world::{Age, Node, Sibling, World};

/// Why the world could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what} of a PeerPod")]
pub struct ObserveError {
    what: String,
    /// What the API server said.
    pub source: kube::Error,
}

/// The world of a PeerPod. The node is asked for only when the PeerPod goes: nothing else depends on it.
///
/// # Errors
/// What could not be read.
pub async fn observe(
    client: &Client,
    peer_pods: &Store<PeerPod>,
    peer_pod: &PeerPod,
) -> Result<World, ObserveError> {
    let node = match (&peer_pod.metadata.deletion_timestamp, &peer_pod.spec.node_name) {
        (Some(_), Some(name)) => node(client, name).await?,
        // Upstream's PeerPods name no node.
        _ => Node::NotReady,
    };
    let all = peer_pods.state();
    let siblings =
        all.iter().filter(|other| is_sibling(peer_pod, other)).map(|other| sibling(other)).collect();
    let pod_is_there = pod_is_there(client, peer_pod).await?;
    Ok(World { node, pod_is_there, siblings, peer_pod: peer_pod.clone() })
}

async fn node(client: &Client, name: &str) -> Result<Node, ObserveError> {
    let nodes: Api<ClusterNode> = Api::all(client.clone());
    let found = nodes.get_opt(name).await;
    let found = found.map_err(|source| ObserveError { what: format!("node {name}"), source })?;
    let Some(node) = found else { return Ok(Node::Gone) };
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    let ready = conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
    Ok(if ready { Node::Ready } else { Node::NotReady })
}

/// Asked only of a PeerPod that goes.
async fn pod_is_there(client: &Client, peer_pod: &PeerPod) -> Result<bool, ObserveError> {
    let Some(pod) = owner(peer_pod).filter(|_| peer_pod.metadata.deletion_timestamp.is_some()) else {
        return Ok(false);
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), &peer_pod.namespace().unwrap_or_default());
    let list = ListParams::default().fields(&format!("metadata.name={}", pod.name));
    let found = pods.list_metadata(&list).await;
    let found = found.map_err(|source| ObserveError { what: format!("pod {}", pod.name), source })?;
    Ok(found.iter().any(|found| found.uid().as_ref() == Some(&pod.uid)))
}

fn is_sibling(peer_pod: &PeerPod, other: &PeerPod) -> bool {
    let (Some(own), Some(others)) = (owner(peer_pod), owner(other)) else { return false };
    own.uid == others.uid && peer_pod.uid() != other.uid() && peer_pod.namespace() == other.namespace()
}

/// The pod it belongs to.
fn owner(peer_pod: &PeerPod) -> Option<&OwnerReference> {
    peer_pod.owner_references().iter().find(|owner| owner.kind == "Pod")
}

fn sibling(other: &PeerPod) -> Sibling {
    Sibling {
        name: other.name_any(),
        uid: other.uid(),
        sandbox: other.spec.sandbox_id.clone(),
        age: Age::of(other),
        is_going: other.metadata.deletion_timestamp.is_some(),
    }
}
