//! Runs the reconciliation of PeerPodConfigs: what triggers it, what becomes of errors, and the Events.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use kube::api::Api;
use kube::runtime::controller::{Action, Config};
use kube::runtime::{Controller, watcher};
use kube::{Client, Resource, ResourceExt};
use peerpods_crds::{PeerPodConfig, VM_RESOURCE};

use super::act::{self, ActError, Outcome};
use super::decide;
use super::events;
use super::observe::{self, ObserveError};
use crate::names;
use crate::reconciled::Teller;
use crate::settings::Settings;
use crate::{stuck, watching};

/// Changes that come together are looked at once.
const DEBOUNCE: Duration = Duration::from_millis(250);
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

/// Reconciles the PeerPodConfigs of the operator's namespace until `stop` is there.
pub async fn run(client: Client, settings: Settings, stop: impl Future<Output = ()> + Send + Sync + 'static) {
    let teller = Teller::new(&client);
    let changes = changes(&client, &settings.namespace);
    let configs: Api<PeerPodConfig> = Api::namespaced(client.clone(), &settings.namespace);
    let context = Arc::new(Context { client, settings, teller });
    Controller::new(configs, watcher::Config::default())
        .trigger_backoff(watching::Patience::default())
        .with_config(Config::default().debounce(DEBOUNCE).concurrency(1))
        .reconcile_all_on(changes)
        .graceful_shutdown_on(stop)
        .run(reconcile, after_error, context)
        .for_each(|done| async move {
            if let Err(error) = done {
                tracing::warn!(error = &error as &dyn std::error::Error, "PeerPodConfig");
            }
        })
        .await;
}

async fn reconcile(config: Arc<PeerPodConfig>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let Context { client, settings, teller } = context.as_ref();
    let world = observe::observe(client, config.as_ref().clone()).await?;
    let plan = decide::decide(&world, settings, Timestamp::now());
    let Outcome { status, done } = act::act(client, &config, &plan).await;
    if let Some(status) = status {
        teller.tell(config.as_ref(), events::notes(&config, &status, &plan.clashes)).await;
    }
    done?;
    Ok(plan.again.map_or_else(Action::await_change, Action::requeue))
}

fn after_error(config: Arc<PeerPodConfig>, error: &ReconcileError, _context: Arc<Context>) -> Action {
    tracing::warn!(
        config = config.name_any(),
        error = error as &dyn std::error::Error,
        "tried again in {AGAIN:?}"
    );
    Action::requeue(AGAIN)
}

fn changes(client: &Client, namespace: &str) -> impl Stream<Item = ()> + Send + 'static {
    let all = watcher::Config::default;
    stream::select_all([
        watching::changes(Api::<Node>::all(client.clone()), all(), of_node),
        watching::changes(Api::<Secret>::namespaced(client.clone(), namespace), all(), |secret| {
            secret
                .data
                .clone()
                .map(|data| data.into_iter().map(|(key, value)| (key, value.0)).collect::<Vec<_>>())
        }),
        watching::changes(Api::<ConfigMap>::namespaced(client.clone(), namespace), all(), |map| {
            map.data.clone()
        }),
        watching::changes(Api::<DaemonSet>::namespaced(client.clone(), namespace), all(), of_service),
        watching::changes(Api::<Pod>::namespaced(client.clone(), namespace), of_the_service(), of_pod),
    ])
}

fn of_node(node: &Node) -> impl std::hash::Hash + use<> {
    let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
    let advertised = capacity.and_then(|all| all.get(VM_RESOURCE)).map(|quantity| quantity.0.clone());
    (node.labels().clone(), advertised)
}

fn of_service(set: &DaemonSet) -> impl std::hash::Hash + use<> {
    let counts = set.status.as_ref().map(|status| {
        (status.desired_number_scheduled, status.number_ready, status.updated_number_scheduled)
    });
    (set.meta().generation, counts)
}

fn of_the_service() -> watcher::Config {
    watcher::Config::default().labels(&format!("name={}", names::NODE_SERVICE))
}

/// Whether it gets on, and if not, why.
fn of_pod(pod: &Pod) -> impl std::hash::Hash + use<> {
    (stuck::why(pod), pod.metadata.deletion_timestamp.is_some())
}
