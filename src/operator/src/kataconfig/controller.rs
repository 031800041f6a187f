//! Runs the reconciliation of KataConfigs: what triggers it, what becomes of errors, and the Events.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Api, DynamicObject};
use kube::runtime::controller::{Action, Config};
use kube::runtime::{Controller, watcher};
use kube::{Client, Resource, ResourceExt};
use peerpods_crds::{KataConfig, PeerPodConfig};

use super::act::{self, ActError, Acted};
use super::build;
use super::decide;
use super::events;
use super::observe::{self, ObserveError};
use crate::names;
use crate::objects::{Kind, ObjectRef};
use crate::reconciled::Teller;
use crate::settings::Settings;
use crate::watching;

/// Changes that come together are looked at once.
const DEBOUNCE: Duration = Duration::from_millis(250);
/// How often a cluster that is not OpenShift is asked whether it is.
const LOOK_FOR_OPENSHIFT: Duration = Duration::from_secs(60);
/// Until the next try after an error.
const AGAIN: Duration = Duration::from_secs(15);

/// Why a reconciliation failed.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Something could not be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// Something could not be written.
    #[error(transparent)]
    Act(#[from] ActError),
}

struct Context {
    client: Client,
    settings: Settings,
    teller: Teller,
}

/// Reconciles KataConfigs until `stop` is there; what is under way then is ended.
pub async fn run(client: Client, settings: Settings, stop: impl Future<Output = ()> + Send + Sync + 'static) {
    let teller = Teller::new(&client);
    let changes = changes(&client, &settings);
    let configs: Api<KataConfig> = Api::all(client.clone());
    let context = Arc::new(Context { client, settings, teller });
    Controller::new(configs, watcher::Config::default())
        .trigger_backoff(watching::Patience::default())
        .with_config(Config::default().debounce(DEBOUNCE).concurrency(1))
        .reconcile_all_on(changes)
        .graceful_shutdown_on(stop)
        .run(reconcile, after_error, context)
        .for_each(|done| async move {
            if let Err(error) = done {
                tracing::warn!(error = &error as &dyn std::error::Error, "KataConfig");
            }
        })
        .await;
}

/// One look at a KataConfig, and what follows from it. Of the one that a watch told of only the name counts.
async fn reconcile(told: Arc<KataConfig>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let Context { client, settings, teller } = context.as_ref();
    let Some(world) = observe::observe(client, &told.name_any(), settings).await? else {
        return Ok(Action::await_change());
    };
    let now = Timestamp::now();
    let plan = decide::decide(&world, settings, now);
    let Acted { status, failure } = act::act(client, &world, &plan, now).await?;
    let before = world.config.status.clone().unwrap_or_default();
    let mut notes = events::notes(&before, &status);
    notes.extend(events::of_webhook(&world, settings, &status));
    // Also of a failure: it is in the status now, and the next look sees no change any more.
    teller.tell(&world.config, notes).await;
    match failure {
        Some(failure) => Err(failure.into()),
        None => Ok(plan.again.map_or_else(Action::await_change, Action::requeue)),
    }
}

fn after_error(config: Arc<KataConfig>, error: &ReconcileError, _context: Arc<Context>) -> Action {
    tracing::warn!(
        config = config.name_any(),
        error = error as &dyn std::error::Error,
        "tried again in {AGAIN:?}"
    );
    Action::requeue(AGAIN)
}

/// Everything whose change may change the plan, or is a drift to repair.
fn changes(client: &Client, settings: &Settings) -> impl Stream<Item = ()> + Send + 'static {
    let everywhere = watcher::Config::default;
    let namespace = settings.namespace.as_str();
    let untyped = [
        Kind::MACHINE_CONFIG,
        Kind::MACHINE_CONFIG_POOL,
        Kind::CONTAINER_RUNTIME_CONFIG,
        Kind::SECURITY_CONTEXT_CONSTRAINTS,
    ]
    .map(|kind| {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.resource());
        watching::changes(api, everywhere(), move |object| of_untyped(kind, object))
    });
    let rest = [
        watching::changes(Api::<Node>::all(client.clone()), everywhere(), of_node),
        watching::changes(
            Api::<RuntimeClass>::all(client.clone()),
            everywhere(),
            RuntimeClass::resource_version,
        ),
        watching::changes(Api::<DaemonSet>::namespaced(client.clone(), namespace), everywhere(), |object| {
            object.meta().generation
        }),
        watching::changes(
            Api::<PeerPodConfig>::namespaced(client.clone(), namespace),
            everywhere(),
            |object| object.meta().generation,
        ),
        watching::changes(Api::<Pod>::namespaced(client.clone(), namespace), workers(), of_worker),
        watching::changes(dashboards(client, namespace), only(names::DASHBOARD), ConfigMap::resource_version),
        of_console(client),
    ];
    stream::select_all(untyped.into_iter().chain(rest).chain(of_webhook(client, namespace)))
}

/// The objects of the pods' webhook by their names, and upstream's configuration: rights go by name.
fn of_webhook(client: &Client, namespace: &str) -> Vec<BoxStream<'static, ()>> {
    let objects = build::webhook_objects(namespace);
    let changes = |object: &ObjectRef| {
        let kind = object.kind;
        watching::changes(object.api(client), only(&object.name), move |object| of_untyped(kind, object))
    };
    objects.iter().chain([&build::upstreams_webhook()]).map(changes).collect()
}

/// The dashboard where OpenShift's console looks for it. Elsewhere there is no such namespace, and nobody gave us rights in it.
fn of_console(client: &Client) -> BoxStream<'static, ()> {
    let api = dashboards(client, names::DASHBOARD_NAMESPACE);
    stream::once(openshift(client.clone()))
        .flat_map(move |()| {
            watching::changes(api.clone(), only(names::DASHBOARD), ConfigMap::resource_version)
        })
        .boxed()
}

/// Waits until this is OpenShift.
async fn openshift(client: Client) {
    let is_there = |groups: k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroupList| {
        groups.groups.iter().any(|group| group.name == Kind::MACHINE_CONFIG.group)
    };
    while !client.list_api_groups().await.is_ok_and(is_there) {
        tokio::time::sleep(LOOK_FOR_OPENSHIFT).await;
    }
}

fn dashboards(client: &Client, namespace: &str) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), namespace)
}

fn only(name: &str) -> watcher::Config {
    watcher::Config::default().fields(&format!("metadata.name={name}"))
}

/// Pods that place and remove files on nodes.
fn workers() -> watcher::Config {
    watcher::Config::default().labels(&format!("name in ({},{})", names::INSTALLER, names::REMOVER))
}

/// What the kubelet says of its container and of its readiness, and whether it is about to end.
fn of_worker(pod: &Pod) -> impl std::hash::Hash + use<> {
    let status = pod.status.as_ref();
    let ready = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let ready = ready.filter(|one| one.type_ == "Ready").any(|one| one.status == "True");
    let containers =
        status.map(|status| serde_json::to_string(&status.container_statuses).unwrap_or_default());
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    (ready, containers, node, pod.metadata.deletion_timestamp.is_some())
}

/// A node's heartbeats say nothing to us; labels, whether it is ready, and what the machine config operator does, do.
fn of_node(node: &Node) -> impl std::hash::Hash + use<> {
    let annotation = |name: &str| node.annotations().get(name).cloned();
    let told = [names::NODE_STATE, names::NODE_CURRENT_CONFIG, names::NODE_REASON].map(annotation);
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
    (node.labels().clone(), told, ready)
}

/// All of an object but its bookkeeping. Of pools the status counts as well; the others' is none of ours.
fn of_untyped(kind: Kind, object: &DynamicObject) -> impl std::hash::Hash + use<> {
    let mut data = object.data.clone();
    if kind != Kind::MACHINE_CONFIG_POOL {
        data.as_object_mut().map(|fields| fields.remove("status"));
    }
    (
        object.labels().clone(),
        object.annotations().clone(),
        object.metadata.deletion_timestamp.is_some(),
        data.to_string(),
    )
}
