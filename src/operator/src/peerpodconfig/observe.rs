//! Reads the world of a PeerPodConfig. No decisions.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node as ClusterNode, Secret};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use peerpods_crds::{PeerPodConfig, VM_RESOURCE};

use super::world::{Keys, Node, Service, World};
use crate::names;

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
    Ok(Service {
        wanted: status.desired_number_scheduled,
        // A pod of the old form that is ready says nothing of the new one.
        ready: status.number_ready.min(status.updated_number_scheduled.unwrap_or(status.number_ready)),
    })
}
