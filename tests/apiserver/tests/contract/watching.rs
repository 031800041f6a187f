//! Watches, and what `kube` builds on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{StreamExt as _, TryStreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{self, finalizer};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::place::{Place, soon, until};

#[tokio::test]
async fn a_watch_tells_what_happened_since_a_list() {
    let place = Place::new().await;
    let maps = place.maps();
    let start = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    place.map("a", json!({"metadata": {"labels": {"on": "yes"}}})).await;
    place.map("b", json!({})).await;
    let off = Patch::Merge(json!({"metadata": {"labels": {"on": "no"}}}));
    maps.patch("a", &PatchParams::default(), &off).await.unwrap();
    let stream = maps.watch(&WatchParams::default().labels("on=yes"), &start).await.unwrap();
    let told: Vec<_> = soon("two events", stream.take(2).try_collect()).await.unwrap();
    assert!(matches!(&told[0], WatchEvent::Added(map) if map.name_any() == "a"), "{told:?}");
    assert!(matches!(&told[1], WatchEvent::Deleted(_)), "it no longer matches: {told:?}");
    place.leave().await;
}

async fn watches(config: watcher::Config) {
    let place = Place::new().await;
    place.map("there", json!({})).await;
    // Real clusters put maps of their own into each namespace.
    let config = config.fields("metadata.name!=kube-root-ca.crt,metadata.name!=openshift-service-ca.crt");
    let stream = watcher(place.maps(), config);
    pin_mut!(stream);
    let mut next = async || soon("an event", stream.try_next()).await.unwrap().unwrap();
    assert!(matches!(next().await, watcher::Event::Init));
    assert!(matches!(next().await, watcher::Event::InitApply(map) if map.name_any() == "there"));
    assert!(matches!(next().await, watcher::Event::InitDone));
    place.map("new", json!({})).await;
    assert!(matches!(next().await, watcher::Event::Apply(map) if map.name_any() == "new"));
    place.maps().delete("there", &DeleteParams::default()).await.unwrap();
    assert!(matches!(next().await, watcher::Event::Delete(map) if map.name_any() == "there"));
    place.leave().await;
}

#[tokio::test]
async fn a_watcher_that_lists_first() {
    watches(watcher::Config::default()).await;
}

#[tokio::test]
async fn a_watcher_with_streaming_lists() {
    watches(watcher::Config::default().streaming_lists()).await;
}

#[tokio::test]
async fn a_watcher_of_metadata_alone() {
    let place = Place::new().await;
    place.map("a", json!({"data": {"x": "y"}})).await;
    let config = watcher::Config::default().fields("metadata.name=a");
    let metadata: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(place.client.clone(), &place.namespace);
    let stream = watcher(metadata, config);
    pin_mut!(stream);
    let init = soon("an event", stream.try_next()).await.unwrap().unwrap();
    assert!(matches!(init, watcher::Event::Init));
    let object = soon("an event", stream.try_next()).await.unwrap().unwrap();
    assert!(matches!(object, watcher::Event::InitApply(map) if map.name_any() == "a"));
    place.leave().await;
}

/// What the controller below has done.
#[derive(Default)]
struct Seen {
    applied: AtomicUsize,
    cleaned: AtomicUsize,
}

#[tokio::test]
async fn a_controller_with_a_finalizer_applies_and_cleans_up() {
    const FINALIZER: &str = "test.example.com/controller";
    let place = Place::new().await;
    let maps = place.maps();
    let seen = Arc::new(Seen::default());
    let api = maps.clone();
    let reconcile = move |map: Arc<ConfigMap>, seen: Arc<Seen>| {
        let api = api.clone();
        async move {
            finalizer(&api, FINALIZER, map, |event| {
                match event {
                    finalizer::Event::Apply(_) => seen.applied.fetch_add(1, Ordering::SeqCst),
                    finalizer::Event::Cleanup(_) => seen.cleaned.fetch_add(1, Ordering::SeqCst),
                };
                std::future::ready(Ok::<_, std::io::Error>(Action::await_change()))
            })
            .await
        }
    };
    let config = watcher::Config::default().labels("controlled=yes");
    let controller = Controller::new(maps.clone(), config)
        .run(reconcile, |_, _, _| Action::requeue(std::time::Duration::from_millis(100)), seen.clone())
        .for_each(|_| std::future::ready(()));
    let running = tokio::spawn(controller);
    place.map("c", json!({"metadata": {"labels": {"controlled": "yes"}}})).await;
    until("it is applied", || async { seen.applied.load(Ordering::SeqCst) > 0 }).await;
    assert_eq!(maps.get("c").await.unwrap().finalizers(), [FINALIZER]);
    maps.delete("c", &DeleteParams::default()).await.unwrap();
    until("it is gone", || async { maps.get_opt("c").await.unwrap().is_none() }).await;
    assert_eq!(seen.cleaned.load(Ordering::SeqCst), 1);
    running.abort();
    place.leave().await;
}
