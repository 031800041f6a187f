//! Steps that the API server refuses.

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Api, ListParams};
use peerpods_crds::KataConfigStatus;
use peerpods_operator::names;
use serde_json::json;

use crate::cluster::{Cluster, until};
use crate::place;

fn is_failed(status: &KataConfigStatus) -> bool {
    status.conditions.first().is_some_and(|one| one.reason == "Failed")
}

impl Cluster {
    async fn told(&self, reason: &str, text: &str) -> bool {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let list = events.list(&ListParams::default()).await.unwrap();
        let says = |event: &Event| event.note.as_ref().is_some_and(|note| note.contains(text));
        list.iter().any(|event| event.reason.as_deref() == Some(reason) && says(event))
    }
}

/// Once is enough: the next look sees no change that could be told.
#[tokio::test]
async fn a_step_that_fails_is_in_the_status_and_in_an_event_and_claims_nothing() {
    let test = "a_step_that_fails_is_in_the_status_and_in_an_event_and_claims_nothing";
    if !place::has_own_server(test, "a real API server refuses nothing on demand") {
        return;
    }
    let mut cluster = Cluster::new(1).await;
    let server = cluster.place.server().unwrap().clone();
    for _ in 0..2 {
        server.fail_next(|asked| asked.verb == "patch" && asked.path.ends_with("/runtimeclasses/kata"), 403);
    }
    cluster.operate().await;
    cluster.ask_for(json!({})).await;
    cluster.status_is("waiting", |status| status.waiting_for_mco_to_start).await;
    cluster.pool_is(names::POOL, "Updating", "R1", 1).await;
    cluster.status_is("begun", |status| !status.waiting_for_mco_to_start).await;
    cluster.node_is("worker0", "Done", "R1").await;
    cluster.pool_is(names::POOL, "Updated", "R1", 1).await;

    cluster.status_is("failed", is_failed).await;
    let status = cluster.status().await;
    let message = &status.conditions[0].message;
    assert!(message.contains("apply RuntimeClass kata"), "{message}");
    assert!(status.runtime_classes.is_empty() && status.runtime_class.is_empty(), "{status:?}");
    assert_eq!(status.installation_status.is_in_progress, "True");
    until("a warning", || cluster.told("Failed", "RuntimeClass kata")).await;
    assert!(!cluster.told("RuntimeClassReady", "kata").await);

    cluster.status_is("made at last", |status| status.runtime_classes == ["kata"]).await;
    assert!(cluster.all::<RuntimeClass>().get_opt("kata").await.unwrap().is_some());
    until("its end is told", || cluster.told("Done", "as asked for")).await;
    assert!(cluster.told("RuntimeClassReady", "kata").await);
}
