//! Which of several replicas leads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use peerpods_operator::deploy::OPERATOR;
use peerpods_operator::lease::{Candidate, DURATION, lead};
use peerpods_operator::names;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, until};
use crate::place;

pub(crate) struct Replica {
    leading: Arc<AtomicUsize>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Replica {
    pub(crate) async fn start(cluster: &Cluster, identity: &str) -> Self {
        let client = cluster.place.client_as(OPERATOR).await;
        let candidate = Candidate {
            namespace: names::NAMESPACE.to_owned(),
            name: OPERATOR.to_owned(),
            identity: identity.to_owned(),
        };
        let (leading, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let counted = leading.clone();
        let work = move |told: CancellationToken| {
            let counted = counted.clone();
            async move {
                counted.fetch_add(1, Ordering::SeqCst);
                told.cancelled().await;
                counted.fetch_sub(1, Ordering::SeqCst);
            }
        };
        let running = tokio::spawn(lead(client, candidate, stop.clone(), work));
        Self { leading, stop, running }
    }

    pub(crate) fn leads(&self) -> bool {
        self.leading.load(Ordering::SeqCst) == 1
    }

    /// Ends in good order.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

async fn holder(cluster: &Cluster) -> Option<String> {
    let lease = cluster.operators::<Lease>().get_opt(OPERATOR).await.unwrap()?;
    lease.spec?.holder_identity
}

#[tokio::test]
async fn one_leads_and_who_ends_hands_over_at_once() {
    let cluster = Cluster::new(0).await;
    let first = Replica::start(&cluster, "first").await;
    until("the first leads", || async { first.leads() }).await;
    let second = Replica::start(&cluster, "second").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(first.leads() && !second.leads());
    first.end().await;
    let began = Instant::now();
    until("the second leads", || async { second.leads() }).await;
    assert!(began.elapsed() < DURATION, "it waited for what was given back");
    assert_eq!(holder(&cluster).await.as_deref(), Some("second"));
    second.end().await;
}

#[tokio::test]
async fn a_leader_without_an_api_server_stops_before_anybody_may_take_over_and_leads_again_after() {
    let test = "a_leader_without_an_api_server_stops_before_anybody_may_take_over_and_leads_again_after";
    if !place::can_be_away(test) {
        return;
    }
    let cluster = Cluster::new(0).await;
    let only = Replica::start(&cluster, "only").await;
    until("it leads", || async { only.leads() }).await;
    cluster.place.stop().await;
    let stops = async {
        while only.leads() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let stopped = tokio::time::timeout(DURATION, stops).await;
    // Whatever came of it: others use the API server.
    cluster.place.start().await;
    assert!(stopped.is_ok(), "somebody else may lead already");
    until("it leads again", || async { only.leads() }).await;
    only.end().await;
}
