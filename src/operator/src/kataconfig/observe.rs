//! Reads the world of a KataConfig from the API server. No decisions.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Node as ClusterNode, Pod, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Api, DynamicObject, ListParams};
use kube::{Client, ResourceExt};
use peerpods_crds::{KataConfig, PeerPod, PeerPodConfig};
use serde_json::Value;

use super::world::{Apis, Class, Node, PodUse, Pool, World};
use super::{nodes, pools, selector};
use crate::names;
use crate::objects::{self, Kind};
use crate::settings::Settings;

mod webhook;
mod workers;

/// How many objects are asked for at once.
const PAGE: u32 = 500;
/// Where the cluster keeps its registry credentials.
const PULL_SECRET: (&str, &str) = ("openshift-config", "pull-secret");

/// Why the world could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what}")]
pub struct ObserveError {
    what: &'static str,
    /// What the API server said.
    pub source: kube::Error,
}

fn failed(what: &'static str) -> impl FnOnce(kube::Error) -> ObserveError {
    move |source| ObserveError { what, source }
}

/// The world of the KataConfig of this name; none when it is gone. Its status is what we remember by, so it is asked for: a watch may not
/// have told yet what we wrote a moment ago.
///
/// # Errors
/// Anything that could not be read; what a cluster does not have is not an error.
pub async fn observe(
    client: &Client,
    name: &str,
    settings: &Settings,
) -> Result<Option<World>, ObserveError> {
    let Some((config, older)) = config(client, name).await? else { return Ok(None) };
    let nodes = all_nodes(client).await?;
    let apis = apis(client, &nodes).await?;
    let mut world = World { apis, nodes, older, config, ..World::default() };
    match apis.machine_configs {
        true => of_machine_configs(client, &mut world).await?,
        false => of_workers(client, settings, &mut world).await?,
    }
    world.pods = pods(client, &world, settings).await?;
    world.dashboard = dashboard(client, settings).await?;
    world.classes = classes(client).await?;
    world.peer_pod_limit = limit(client, settings).await?;
    world.going = going(client, settings, apis).await?;
    world.webhook = webhook::webhook(client, settings).await?;
    Ok(Some(world))
}

/// Which of OpenShift's APIs there are, by discovery. An API server that has just started may not know all of its groups: where nodes show
/// that there is a machine config operator, its API is only away, and asking for its objects says so.
async fn apis(client: &Client, nodes: &[Node]) -> Result<Apis, ObserveError> {
    let groups = client.list_api_groups().await.map_err(failed("which APIs there are"))?;
    let has = |kind: Kind| groups.groups.iter().any(|group| group.name == kind.group);
    Ok(Apis {
        machine_configs: has(Kind::MACHINE_CONFIG) || nodes.iter().any(|node| node.current.is_some()),
        security_constraints: has(Kind::SECURITY_CONTEXT_CONSTRAINTS),
    })
}

/// What the machine config operator knows, and the nodes that it looks after.
async fn of_machine_configs(client: &Client, world: &mut World) -> Result<(), ObserveError> {
    world.nodes.retain(|node| node.is_worker() || node.is_master() || node.has_role());
    world.pools = pools(client).await?;
    world.machine_configs = machine_configs(client).await?;
    world.pull_secret = pull_secret(client).await?;
    world.log_level_config = there(client, Kind::CONTAINER_RUNTIME_CONFIG, names::LOG_LEVEL_CONFIG).await?;
    Ok(())
}

/// What our own pods on nodes know.
async fn of_workers(client: &Client, settings: &Settings, world: &mut World) -> Result<(), ObserveError> {
    let templates = workers::Templates::read(client, settings).await?;
    workers::tell(client, settings, &templates, &mut world.nodes).await?;
    world.installer = templates.installer();
    Ok(())
}

/// Everything of a kind, a page at a time.
async fn all<K>(api: &Api<K>, mut params: ListParams, what: &'static str) -> Result<Vec<K>, ObserveError>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let mut found = Vec::new();
    params = params.limit(PAGE);
    loop {
        let list = api.list(&params).await.map_err(failed(what))?;
        found.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// A KataConfig as it is now, and the names of those that were made before it; of one moment, those whose names come first.
async fn config(client: &Client, name: &str) -> Result<Option<(KataConfig, Vec<String>)>, ObserveError> {
    let configs: Api<KataConfig> = Api::all(client.clone());
    let (mine, others): (Vec<_>, Vec<_>) = all(&configs, ListParams::default(), "KataConfigs")
        .await?
        .into_iter()
        .partition(|config| config.name_any() == name);
    let Some(mine) = mine.into_iter().next() else { return Ok(None) };
    let rank = |config: &KataConfig| (config.creation_timestamp().map(|time| time.0), config.name_any());
    let mut older: Vec<_> = others.iter().map(rank).filter(|other| *other < rank(&mine)).collect();
    older.sort();
    Ok(Some((mine, older.into_iter().map(|(_, name)| name).collect())))
}

async fn untyped(
    client: &Client,
    kind: Kind,
    what: &'static str,
) -> Result<Vec<DynamicObject>, ObserveError> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource());
    all(&api, ListParams::default(), what).await
}

async fn pools(client: &Client) -> Result<BTreeMap<String, Pool>, ObserveError> {
    let found = untyped(client, Kind::MACHINE_CONFIG_POOL, "machine config pools").await?;
    Ok(found.iter().map(|object| (object.name_any(), pool(&object.data))).collect())
}

fn pool(data: &Value) -> Pool {
    let condition = |kind: &str| {
        let conditions = data["status"]["conditions"].as_array();
        conditions.into_iter().flatten().find(|one| one["type"] == kind && one["status"] == "True")
    };
    let count = |field: &str| data["status"][field].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
    let degraded = condition("NodeDegraded").or_else(|| condition("Degraded"));
    let sources = data["spec"]["configuration"]["source"].as_array();
    Pool {
        updating: condition("Updating").is_some(),
        updated: condition("Updated").is_some(),
        degraded: degraded.and_then(|one| one["message"].as_str()).map(str::to_owned),
        target: data["spec"]["configuration"]["name"].as_str().map(str::to_owned),
        sources: sources
            .into_iter()
            .flatten()
            .filter_map(|one| one["name"].as_str())
            .map(str::to_owned)
            .collect(),
        machines: count("machineCount"),
        updated_machines: count("updatedMachineCount"),
    }
}

async fn all_nodes(client: &Client) -> Result<Vec<Node>, ObserveError> {
    let nodes: Api<ClusterNode> = Api::all(client.clone());
    let found = all(&nodes, ListParams::default(), "nodes").await?;
    let mut nodes: Vec<Node> = found.iter().map(node).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nodes)
}

fn node(node: &ClusterNode) -> Node {
    let annotation = |name: &str| node.annotations().get(name).filter(|value| !value.is_empty()).cloned();
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let runtime =
        status.and_then(|status| status.node_info.as_ref()).map(|info| &info.container_runtime_version);
    Node {
        ready: conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True"),
        runtime: runtime.cloned().unwrap_or_default(),
        worker: None,
        name: node.name_any(),
        labels: node.labels().clone(),
        state: annotation(names::NODE_STATE),
        current: annotation(names::NODE_CURRENT_CONFIG),
        reason: annotation(names::NODE_REASON),
    }
}

/// Pods of our classes. Only asked for when it matters: there may be many thousands of pods.
async fn pods(client: &Client, world: &World, settings: &Settings) -> Result<Vec<PodUse>, ObserveError> {
    let config = &world.config;
    let made = config.status.as_ref().map(|status| status.runtime_classes.clone()).unwrap_or_default();
    let removing = config.metadata.deletion_timestamp.is_some();
    let turned_off =
        !config.spec.enable_peer_pods && made.iter().any(|class| settings.peer_pod_classes.contains(class));
    if !removing && !turned_off && !a_node_leaves(world) {
        return Ok(Vec::new());
    }
    let mut classes: BTreeSet<&str> = made.iter().map(String::as_str).collect();
    classes.insert(names::KATA_CLASS);
    classes.extend(settings.peer_pod_classes.iter().map(String::as_str));
    let pods: Api<Pod> = Api::all(client.clone());
    let found = all(&pods, ListParams::default(), "pods").await?;
    Ok(found.iter().filter_map(|pod| use_of(pod, &classes)).collect())
}

/// Whether our files are to go from a node that is not meant any more. What the machine config operator changes it drains first.
fn a_node_leaves(world: &World) -> bool {
    let Ok(selector) = selector::of_user(&world.config.spec) else { return false };
    let meant: BTreeSet<&str> =
        nodes::meant(&world.nodes, &selector).iter().map(|node| node.name.as_str()).collect();
    let leaves = |node: &Node| node.is_to_have_files() && !meant.contains(node.name.as_str());
    !world.apis.machine_configs && world.nodes.iter().any(leaves)
}

fn use_of(pod: &Pod, classes: &BTreeSet<&str>) -> Option<PodUse> {
    let class = pod.spec.as_ref()?.runtime_class_name.as_deref().filter(|class| classes.contains(class))?;
    Some(PodUse {
        class: class.to_owned(),
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
    })
}

async fn machine_configs(client: &Client) -> Result<BTreeSet<String>, ObserveError> {
    let mut found = BTreeSet::new();
    for name in pools::ALL {
        if there(client, Kind::MACHINE_CONFIG, name).await? {
            found.insert(name.to_owned());
        }
    }
    Ok(found)
}

async fn there(client: &Client, kind: Kind, name: &str) -> Result<bool, ObserveError> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource());
    Ok(api.get_metadata_opt(name).await.map_err(failed(kind.kind))?.is_some())
}

async fn pull_secret(client: &Client) -> Result<Option<Vec<u8>>, ObserveError> {
    let (namespace, name) = PULL_SECRET;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = secrets.get_opt(name).await.map_err(failed("the cluster's pull secret"))?;
    Ok(secret.and_then(|secret| secret.data?.remove(".dockerconfigjson")).map(|bytes| bytes.0))
}

async fn dashboard(
    client: &Client,
    settings: &Settings,
) -> Result<Option<BTreeMap<String, String>>, ObserveError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &settings.namespace);
    Ok(maps.get_opt(names::DASHBOARD).await.map_err(failed("the dashboard"))?.and_then(|map| map.data))
}

async fn classes(client: &Client) -> Result<BTreeMap<String, Class>, ObserveError> {
    let classes: Api<RuntimeClass> = Api::all(client.clone());
    let found = all(&classes, ListParams::default(), "runtime classes").await?;
    Ok(found.into_iter().map(|one| (one.name_any(), class(one))).collect())
}

fn class(class: RuntimeClass) -> Class {
    let ours = objects::is_ours(&class);
    let fixed = class.overhead.and_then(|overhead| overhead.pod_fixed).unwrap_or_default();
    let overhead = fixed.into_iter().map(|(name, quantity)| (name, quantity.0)).collect();
    Class { handler: class.handler, overhead, ours }
}

async fn limit(client: &Client, settings: &Settings) -> Result<Option<String>, ObserveError> {
    let configs: Api<PeerPodConfig> = Api::namespaced(client.clone(), &settings.namespace);
    let found = configs.get_opt(names::PEER_POD_CONFIG).await.map_err(failed("the PeerPodConfig"))?;
    Ok(found.map(|config| config.spec.limit))
}

/// What has to be gone before the KataConfig may go: the PeerPodConfig, whose end cleans nodes, and the VMs.
async fn going(client: &Client, settings: &Settings, apis: Apis) -> Result<Vec<String>, ObserveError> {
    let configs: Api<PeerPodConfig> = Api::namespaced(client.clone(), &settings.namespace);
    let peer_pods: Api<PeerPod> = Api::all(client.clone());
    let config =
        configs.get_metadata_opt(names::PEER_POD_CONFIG).await.map_err(failed("the PeerPodConfig"))?;
    // Somebody else's stays.
    let config = config.filter(|config| apis.machine_configs || objects::is_ours(config));
    let vms = all(&peer_pods, ListParams::default(), "PeerPods").await?;
    let config = config.map(|_| format!("PeerPodConfig {}", names::PEER_POD_CONFIG));
    let vms =
        vms.iter().map(|vm| format!("PeerPod {}/{}", vm.namespace().unwrap_or_default(), vm.name_any()));
    Ok(config.into_iter().chain(vms).collect())
}
