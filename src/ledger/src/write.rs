//! One look at a VM's PeerPod, and what follows from it.

use k8s_openapi::api::core::v1::{Node, Pod as ClusterPod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Resource, ResourceExt};
use peerpods_crds::{PEERPOD_FINALIZER, PeerPod, PeerPodSpec};
use peerpods_provider::VmKey;
use serde_json::json;

use crate::decide::{self, LABEL, Pod, Step, Wanted};
use crate::desk::Place;

/// What a kubelet marks the API's image of a pod with that comes from a file of the node.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What the API server said to which question.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}")]
pub(crate) struct WriteError {
    doing: String,
    pub(crate) source: kube::Error,
}

fn failed(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> WriteError {
    let doing = doing.into();
    move |source| WriteError { doing, source }
}

/// Makes the cluster know of a VM what is wanted. May be dropped at any await and called again.
pub(crate) async fn write(
    client: &Client,
    place: &Place,
    key: &VmKey,
    wanted: &Wanted,
) -> Result<(), WriteError> {
    match wanted {
        Wanted::Owned { pod, instance } => owned(client, place, key, pod, instance.as_deref()).await,
        Wanted::Gone { pod } => gone(client, key, pod.as_ref()).await,
    }
}

async fn owned(
    client: &Client,
    place: &Place,
    key: &VmKey,
    pod: &Pod,
    instance: Option<&str>,
) -> Result<(), WriteError> {
    let api: Api<PeerPod> = Api::namespaced(client.clone(), &pod.namespace);
    let name = decide::name(key, pod);
    let found = api.get_opt(&name).await.map_err(failed(format!("read PeerPod {}/{name}", pod.namespace)))?;
    match decide::decide(found.as_ref(), instance) {
        Step::Nothing => Ok(()),
        Step::Create => create(client, &api, place, key, pod, instance).await,
        Step::Patch(patch) => match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            Err(error) => Err(failed(format!("change PeerPod {}/{name}", pod.namespace))(error)),
        },
    }
}

async fn create(
    client: &Client,
    api: &Api<PeerPod>,
    place: &Place,
    key: &VmKey,
    pod: &Pod,
    instance: Option<&str>,
) -> Result<(), WriteError> {
    let Some(owner) = owner(client, pod).await? else {
        tracing::info!(pod = pod.name, namespace = pod.namespace, sandbox = %key.sandbox, "the cluster knows no such pod, so nothing there owns its VM");
        return Ok(());
    };
    let spec = PeerPodSpec {
        cloud_provider: place.provider.clone(),
        instance_id: instance.unwrap_or_default().to_owned(),
        sandbox_id: Some(key.sandbox.to_string()),
        cluster_id: Some(key.cluster.to_string()),
        node_name: Some(place.node.clone()),
        location: pod.location.clone(),
        sandbox_created: pod.since.clone(),
    };
    let peer_pod = decide::created(key, pod, owner, spec);
    match api.create(&PostParams::default(), &peer_pod).await {
        Ok(_) => Ok(()),
        Err(error) => Err(failed(format!("create PeerPod {}/{}", pod.namespace, peer_pod.name_any()))(error)),
    }
}

/// Whose end is that of the VM. A pod from a file of its node is its node's: its image at the API server comes and goes while it runs.
async fn owner(client: &Client, pod: &Pod) -> Result<Option<OwnerReference>, WriteError> {
    let pods: Api<ClusterPod> = Api::namespaced(client.clone(), &pod.namespace);
    let found = pods.get_opt(&pod.name).await;
    let found = found.map_err(failed(format!("read pod {}/{}", pod.namespace, pod.name)))?;
    let Some(found) = found else { return Ok(None) };
    if !found.annotations().contains_key(MIRROR) {
        return Ok(found
            .controller_owner_ref(&())
            .map(|owner| OwnerReference { block_owner_deletion: Some(true), ..owner }));
    }
    let node = found.spec.and_then(|spec| spec.node_name).unwrap_or_default();
    let nodes: Api<Node> = Api::all(client.clone());
    let found = nodes.get_opt(&node).await.map_err(failed(format!("read node {node}")))?;
    Ok(found.and_then(|node| node.owner_ref(&())))
}

async fn gone(client: &Client, key: &VmKey, pod: Option<&Pod>) -> Result<(), WriteError> {
    for peer_pod in those_of(client, key, pod).await? {
        remove(client, &peer_pod).await?;
    }
    Ok(())
}

async fn those_of(client: &Client, key: &VmKey, pod: Option<&Pod>) -> Result<Vec<PeerPod>, WriteError> {
    match pod {
        Some(pod) => {
            let api: Api<PeerPod> = Api::namespaced(client.clone(), &pod.namespace);
            let name = decide::name(key, pod);
            let found = api.get_opt(&name).await;
            found.map(Vec::from_iter).map_err(failed(format!("read PeerPod {}/{name}", pod.namespace)))
        }
        None => {
            let selector = format!("{LABEL}={}", decide::tag(key));
            let all =
                Api::<PeerPod>::all(client.clone()).list(&ListParams::default().labels(&selector)).await;
            all.map(|list| list.items).map_err(failed(format!("look for the PeerPod of VM {key}")))
        }
    }
}

/// First its end, then our finalizer: in between the operator finds a PeerPod whose VM is gone already, which is soon told.
async fn remove(client: &Client, peer_pod: &PeerPod) -> Result<(), WriteError> {
    let (namespace, name) = (peer_pod.namespace().unwrap_or_default(), peer_pod.name_any());
    let api: Api<PeerPod> = Api::namespaced(client.clone(), &namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid: peer_pod.uid(), resource_version: None }),
        ..DeleteParams::background()
    };
    // An answer without the object: nothing held it, and it is gone.
    let ended = match api.delete(&name, &params).await {
        Ok(answer) => answer.left(),
        Err(error) => return if_there(error, format!("delete PeerPod {namespace}/{name}")),
    };
    let Some(ended) = ended else { return Ok(()) };
    let others: Vec<&String> = ended.finalizers().iter().filter(|one| *one != PEERPOD_FINALIZER).collect();
    if others.len() == ended.finalizers().len() {
        return Ok(());
    }
    let version = ended.resource_version();
    let patch = json!({ "metadata": { "finalizers": others, "resourceVersion": version } });
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(error) => if_there(error, format!("let PeerPod {namespace}/{name} go")),
    }
}

fn if_there(error: kube::Error, doing: String) -> Result<(), WriteError> {
    match error {
        kube::Error::Api(status) if status.is_not_found() => Ok(()),
        error => Err(failed(doing)(error)),
    }
}
