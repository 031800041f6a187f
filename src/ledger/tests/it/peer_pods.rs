//! What the node service writes, and when.

use std::time::{Duration, Instant};

use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use peerpods_crds::PEERPOD_FINALIZER;
use peerpods_hypervisor::ledger::Ledger;
use peerpods_ledger::PATIENCE;
use serde_json::{Value, json};

use crate::bench::{Bench, NODE, SHOP, SINCE_UNIX_MS, claim, instance, key, until};

#[tokio::test]
async fn a_vm_is_recorded_before_it_is_made_and_until_it_is_gone() {
    let bench = Bench::new().await;
    let uid = bench.pod("web", Value::Null).await;
    bench.ledger.intend(&key("s1"), claim(SHOP, "web")).await;
    let found = bench.only().await;
    assert_eq!(found.finalizers(), [PEERPOD_FINALIZER]);
    let owner = &found.owner_references()[0];
    assert_eq!((owner.kind.as_str(), &owner.uid, owner.controller), ("Pod", &uid, Some(true)));
    assert_eq!(found.spec.instance_id, "", "nothing was made yet");
    assert_eq!(found.spec.sandbox_id.as_deref(), Some("s1"));
    assert_eq!(found.spec.node_name.as_deref(), Some(NODE));
    assert_eq!(found.spec.location.as_deref(), Some("here"));
    let since = found.spec.sandbox_created.map(|time| time.0.as_millisecond());
    assert_eq!(since, i64::try_from(SINCE_UNIX_MS).ok());

    bench.ledger.assign(&key("s1"), &instance("i-1")).await;
    until("the VM's id is known", || async { bench.only().await.spec.instance_id == "i-1" }).await;
    bench.ledger.release(&key("s1")).await;
    assert_eq!(bench.all().await, []);
    assert!(bench.pods().get_opt("web").await.unwrap().is_some(), "the pod is none of ours");
}

#[tokio::test]
async fn twice_is_once_and_what_is_so_already_is_not_written() {
    let bench = Bench::new().await;
    bench.pod("web", Value::Null).await;
    bench.ledger.intend(&key("s1"), claim(SHOP, "web")).await;
    bench.ledger.assign(&key("s1"), &instance("i-1")).await;
    until("the VM's id is known", || async { bench.only().await.spec.instance_id == "i-1" }).await;
    let before = bench.only().await.resource_version();
    bench.ledger.recall(&key("s1"), claim(SHOP, "web"), Some("i-1")).await;
    bench.ledger.intend(&key("s1"), claim(SHOP, "web")).await;
    assert_eq!(bench.only().await.resource_version(), before);
}

#[tokio::test]
async fn an_api_server_that_is_away_delays_a_pod_by_its_patience_and_is_told_later() {
    let bench = Bench::new().await;
    bench.pod("web", Value::Null).await;
    bench.server.stop().await;
    let began = Instant::now();
    bench.ledger.intend(&key("s1"), claim(SHOP, "web")).await;
    bench.ledger.assign(&key("s1"), &instance("i-1")).await;
    let took = began.elapsed();
    assert!(took >= PATIENCE && took < PATIENCE + Duration::from_secs(2), "{took:?}");
    bench.server.serve_again().unwrap();
    until("it is told", || async { bench.all().await.iter().any(|one| one.spec.instance_id == "i-1") }).await;
}

#[tokio::test]
async fn a_vm_that_came_and_went_while_the_api_server_was_away_leaves_nothing() {
    let bench = Bench::new().await;
    bench.pod("web", Value::Null).await;
    bench.server.stop().await;
    bench.ledger.intend(&key("s1"), claim(SHOP, "web")).await;
    bench.ledger.release(&key("s1")).await;
    bench.server.serve_again().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.all().await, []);
}

#[tokio::test]
async fn a_service_that_comes_back_records_what_it_could_not_and_releases_what_it_did_not_write() {
    let mut bench = Bench::new().await;
    bench.pod("web", Value::Null).await;
    bench.restart();
    bench.ledger.recall(&key("s1"), claim(SHOP, "web"), Some("i-1")).await;
    until("it is recorded", || async { bench.all().await.len() == 1 }).await;
    assert_eq!(bench.only().await.spec.instance_id, "i-1");
    bench.restart();
    bench.ledger.release(&key("s1")).await;
    assert_eq!(bench.all().await, []);
}

#[tokio::test]
async fn others_finalizers_and_others_peerpods_stay() {
    let bench = Bench::new().await;
    bench.pod("web", Value::Null).await;
    for sandbox in ["s1", "s2"] {
        bench.ledger.intend(&key(sandbox), claim(SHOP, "web")).await;
    }
    let all = bench.all().await;
    let first = all.iter().find(|one| one.spec.sandbox_id.as_deref() == Some("s1")).unwrap();
    let patch = json!({ "metadata": { "finalizers": [PEERPOD_FINALIZER, "other.example/f"] } });
    let name = first.name_any();
    bench.peer_pods().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    bench.ledger.release(&key("s1")).await;
    let left = bench.all().await;
    assert_eq!(left.len(), 2);
    let first = left.iter().find(|one| one.name_any() == name).unwrap();
    assert_eq!(first.finalizers(), ["other.example/f"]);
    assert!(first.metadata.deletion_timestamp.is_some());
}

#[tokio::test]
async fn a_pod_that_the_cluster_does_not_know_gets_its_vm_all_the_same() {
    let bench = Bench::new().await;
    let began = Instant::now();
    bench.ledger.intend(&key("s1"), claim(SHOP, "nobody")).await;
    bench.ledger.intend(&key("s2"), claim("nowhere", "nobody")).await;
    assert!(began.elapsed() < PATIENCE, "there is nothing to wait for");
    assert_eq!(bench.all().await, []);
    bench.ledger.release(&key("s1")).await;
}

#[tokio::test]
async fn the_vm_of_a_pod_from_a_file_is_its_nodes() {
    let bench = Bench::new().await;
    bench.pod("web", json!({ "kubernetes.io/config.mirror": "x" })).await;
    bench.ledger.intend(&key("s1"), claim(SHOP, "web")).await;
    let owner = bench.only().await.owner_references()[0].clone();
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Node", NODE));
}
