//! Runs the reconciliation of PeerPods, and the sweep beside it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::Store;
use kube::runtime::{Controller, watcher};
use kube::{Client, ResourceExt};
use peerpods_crds::PeerPod;
use peerpods_podvm::causes::chain;
use tokio::time::sleep;

use super::act::{self, Hands, Pauses};
use super::clouds::Clouds;
use super::decide::{self, Plan};
use super::metrics::Metrics;
use super::observe::{self, ObserveError};
use super::sweep;
use super::world::Pace;
use crate::cluster;
use crate::reconciled::{Teller, WriteError};
use crate::watching;

/// Until the next try after the API server failed.
const AGAIN: Duration = Duration::from_secs(15);
/// Deletions take a while and do not wait for one another.
const AT_ONCE: u16 = 16;

/// Why a reconciliation failed.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Something could not be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// Something could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

struct Context {
    hands: Arc<Hands>,
    peer_pods: Store<PeerPod>,
    pace: Pace,
}

/// Reconciles PeerPods of all namespaces, and sweeps, until `stop` is there; what is under way then is ended.
pub async fn run(
    client: Client,
    namespace: &str,
    clouds: Clouds,
    metrics: Metrics,
    pace: Pace,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let teller = Teller::new(&client);
    let Some((cluster, stop)) = or_stopped(&client, stop).await else { return };
    let hands = Arc::new(Hands {
        client: client.clone(),
        clouds,
        cluster,
        metrics,
        teller,
        pauses: Pauses::default(),
    });
    let controller = Controller::new(Api::<PeerPod>::all(client.clone()), watcher::Config::default())
        .trigger_backoff(watching::Patience::default());
    let context = Arc::new(Context { hands: hands.clone(), peer_pods: controller.store(), pace });
    let waiting = hands.clone();
    let reconciling = controller
        .with_config(Config::default().concurrency(AT_ONCE))
        .reconcile_all_on(settings_change(&client, namespace).inspect(move |()| waiting.pauses.forget()))
        .graceful_shutdown_on(stop)
        .run(reconcile, after_error, context)
        .for_each(|done| async move {
            if let Err(error) = done {
                tracing::warn!(error = &error as &dyn std::error::Error, "PeerPod");
            }
        });
    tokio::select! {
        () = reconciling => {}
        () = sweep::run(&hands, &pace) => {}
    }
}

/// The cluster's id, asked for until it is known; none when it is time to stop before.
async fn or_stopped<F: Future<Output = ()> + Send + Sync + 'static>(
    client: &Client,
    stop: F,
) -> Option<(peerpods_podvm::ClusterId, std::pin::Pin<Box<F>>)> {
    let mut stop = Box::pin(stop);
    loop {
        match cluster::id(client).await {
            Ok(id) => return Some((id, stop)),
            Err(error) => tracing::warn!(error = chain(&error), "tried again in {AGAIN:?}"),
        }
        tokio::select! {
            () = sleep(AGAIN) => {}
            () = &mut stop => return None,
        }
    }
}

async fn reconcile(peer_pod: Arc<PeerPod>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let hands = &context.hands;
    let world = observe::observe(&hands.client, &context.peer_pods, &peer_pod).await?;
    let Plan { step, again } = decide::decide(&world, &context.pace, Timestamp::now());
    let later = act::act(hands, &world, &step).await?;
    Ok(later.or(again).map_or_else(Action::await_change, Action::requeue))
}

fn after_error(peer_pod: Arc<PeerPod>, error: &ReconcileError, _context: Arc<Context>) -> Action {
    tracing::warn!(
        peer_pod = peer_pod.name_any(),
        error = error as &dyn std::error::Error,
        "tried again in {AGAIN:?}"
    );
    Action::requeue(AGAIN)
}

/// Other credentials are tried at once, and not after the pause that wrong ones led to.
fn settings_change(client: &Client, namespace: &str) -> impl futures::Stream<Item = ()> + Send + 'static {
    let all = watcher::Config::default;
    stream::select_all([
        watching::changes(Api::<Secret>::namespaced(client.clone(), namespace), all(), |secret| {
            secret
                .data
                .clone()
                .map(|data| data.into_iter().map(|(key, value)| (key, value.0)).collect::<Vec<_>>())
        }),
        watching::changes(Api::<ConfigMap>::namespaced(client.clone(), namespace), all(), |map| {
            map.data.clone()
        }),
    ])
}
