//! Reads the world of a PeerPodConfig. No decisions.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node as ClusterNode, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use peerpods_crds::{PeerPodConfig, VM_RESOURCE};

use super::world::{Keys, Node, Service, Stuck, World};
use crate::{names, stuck};

/// Why the world could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what}")]
pub struct ObserveError {
    what: String,
    /// What the API server said.
    pub source: kube::Error,
}

fn failed(what: impl Into<String>) -> impl FnOnce(kube::Error) -> ObserveError {
    let what = what.into();
    move |source| ObserveError { what, source }
}

/// The world of a PeerPodConfig.
///
/// # Errors
/// Anything that could not be read; a Secret or ConfigMap that is not there is none.
pub async fn observe(client: &Client, config: PeerPodConfig) -> Result<World, ObserveError> {
    let namespace = config.namespace().unwrap_or_default();
    Ok(World {
        nodes: nodes(client).await?,
        secret: secret(client, &namespace, &config.spec.cloud_secret_name).await?,
        config_map: config_map(client, &namespace, &config.spec.config_map_name).await?,
        service: service(client, &namespace).await?,
        older: older(client, &config).await?,
        config,
    })
}

async fn nodes(client: &Client) -> Result<Vec<Node>, ObserveError> {
    let nodes: Api<ClusterNode> = Api::all(client.clone());
    let found = nodes.list(&ListParams::default()).await.map_err(failed("nodes"))?;
    let mut nodes: Vec<Node> = found.items.iter().map(node).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nodes)
}

fn node(node: &ClusterNode) -> Node {
    let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
    Node {
        name: node.name_any(),
        labels: node.labels().clone(),
        advertised: capacity.and_then(|all| all.get(VM_RESOURCE)).map(|quantity| quantity.0.clone()),
    }
}

async fn secret(client: &Client, namespace: &str, name: &str) -> Result<Option<Keys>, ObserveError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let found = secrets.get_opt(name).await.map_err(failed(format!("Secret {name}")))?;
    let bytes = |secret: Secret| {
        secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()
    };
    Ok(found.map(|secret| Keys(bytes(secret))))
}

async fn config_map(client: &Client, namespace: &str, name: &str) -> Result<Option<Keys>, ObserveError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let found = maps.get_opt(name).await.map_err(failed(format!("ConfigMap {name}")))?;
    let bytes = |map: ConfigMap| {
        map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes())).collect()
    };
    Ok(found.map(|map| Keys(bytes(map))))
}

async fn service(client: &Client, namespace: &str) -> Result<Service, ObserveError> {
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let found = sets.get_opt(names::NODE_SERVICE).await.map_err(failed("the service's DaemonSet"))?;
    let status = found.and_then(|set| set.status).unwrap_or_default();
    let stuck = stuck(client, namespace).await?;
    Ok(Service {
        stuck,
        wanted: status.desired_number_scheduled,
        // A pod of the old form that is ready says nothing of the new one.
        ready: status.number_ready.min(status.updated_number_scheduled.unwrap_or(status.number_ready)),
    })
}

/// Pods of the service that do not get on, by node.
async fn stuck(client: &Client, namespace: &str) -> Result<Vec<Stuck>, ObserveError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let of_service = ListParams::default().labels(&format!("name={}", names::NODE_SERVICE));
    let found = pods.list(&of_service).await.map_err(failed("the service's pods"))?;
    let mut stuck: Vec<Stuck> = found.items.iter().filter_map(one_stuck).collect();
    stuck.sort_by(|a, b| a.node.cmp(&b.node));
    Ok(stuck)
}

/// One that is about to end says nothing of the service as it is to be.
fn one_stuck(pod: &Pod) -> Option<Stuck> {
    let owners = pod.owner_references();
    let of_set = owners.iter().any(|owner| owner.kind == "DaemonSet" && owner.name == names::NODE_SERVICE);
    let node = pod.spec.as_ref()?.node_name.clone()?;
    let why = stuck::why(pod).filter(|_| of_set && pod.metadata.deletion_timestamp.is_none())?;
    Some(Stuck { node, why })
}

/// Of several PeerPodConfigs the one with the least counts, for whoever reads their settings.
pub(crate) fn rank(meta: &ObjectMeta) -> (Option<jiff::Timestamp>, Option<String>) {
    (meta.creation_timestamp.as_ref().map(|time| time.0), meta.name.clone())
}

/// Names of PeerPodConfigs that were made before this one; of one moment, those whose names come first.
async fn older(client: &Client, config: &PeerPodConfig) -> Result<Vec<String>, ObserveError> {
    let all: Api<PeerPodConfig> = Api::namespaced(client.clone(), &config.namespace().unwrap_or_default());
    let mine = rank(&config.metadata);
    let all = all.list_metadata(&ListParams::default()).await.map_err(failed("PeerPodConfigs"))?;
    let mut older: Vec<_> =
        all.items.iter().map(|other| rank(&other.metadata)).filter(|other| *other < mine).collect();
    older.sort();
    Ok(older.into_iter().filter_map(|(_, name)| name).collect())
}
