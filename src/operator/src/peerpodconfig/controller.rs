//! Runs the reconciliation of PeerPodConfigs: what triggers it, what becomes of errors, and the Events.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use kube::api::Api;
use kube::runtime::controller::{Action, Config};
use kube::runtime::{Controller, watcher};
use kube::{Client, Resource, ResourceExt};
use peerpods_crds::{PeerPodConfig, VM_RESOURCE};

use super::act::{self, ActError};
use super::decide::{self, Plan};
use super::observe::{self, ObserveError};
use crate::reconciled::{Note, Teller};
use crate::settings::Settings;
use crate::watching;

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
    act::act(client, &config, &plan).await?;
    teller.tell(config.as_ref(), notes(&config, &plan)).await;
    Ok(plan.again.map_or_else(Action::await_change, Action::requeue))
}

/// A change of the condition, and clashes when the configuration is looked at for the first time after a change.
fn notes(config: &PeerPodConfig, plan: &Plan) -> Vec<Note> {
    let before = config.status.clone().unwrap_or_default();
    if before == plan.status {
        return Vec::new();
    }
    let reason = |status: &peerpods_crds::PeerPodConfigStatus| {
        status.conditions.first().map(|one| (one.reason.clone(), one.message.clone())).unwrap_or_default()
    };
    let mut notes = Vec::new();
    let (word, message) = reason(&plan.status);
    if reason(&before).0 != word {
        let warning = !matches!(word.as_str(), "Ready" | "ServiceStarting");
        let text = if message.is_empty() {
            "the service runs and nodes advertise their VMs".to_owned()
        } else {
            message
        };
        notes.push(Note { warning, reason: word, text });
    }
    if !plan.clashes.is_empty() {
        let text = format!(
            "in both Secret {} and ConfigMap {}, the ConfigMap's counts: {}",
            config.spec.cloud_secret_name,
            config.spec.config_map_name,
            plan.clashes.join(", ")
        );
        notes.push(Note { warning: true, reason: "KeyInBoth".to_owned(), text });
    }
    notes
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
