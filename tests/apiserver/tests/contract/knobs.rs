//! What only the test API server can do: to break, and to tell what it was asked.

use std::time::Duration;

use futures::{StreamExt as _, pin_mut};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use serde_json::json;

use crate::place::{Place, refusal, soon};

#[tokio::test]
async fn a_watch_from_before_a_compaction_has_expired() {
    let Some((place, server)) = Place::with_server("a_watch_from_before_a_compaction_has_expired").await
    else {
        return;
    };
    let start = place.maps().list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    place.map("a", json!({})).await;
    server.compact();
    let stream = place.maps().watch(&WatchParams::default(), &start).await.unwrap();
    pin_mut!(stream);
    let first = soon("an event", stream.next()).await.unwrap().unwrap();
    assert!(
        matches!(&first, WatchEvent::Error(status) if status.code == 410 && status.reason == "Expired"),
        "{first:?}"
    );
}

#[tokio::test]
async fn a_watcher_comes_back_from_everything() {
    let Some((place, server)) = Place::with_server("a_watcher_comes_back_from_everything").await else {
        return;
    };
    place.map("first", json!({})).await;
    let stream = watcher(place.maps(), watcher::Config::default()).default_backoff().applied_objects();
    pin_mut!(stream);
    // Errors in between are what is being tested.
    let mut wait_for = async |name: &str| {
        soon(name, async {
            while stream.next().await.unwrap().is_ok_and(|map| map.name_any() == name).then_some(()).is_none()
            {
            }
        })
        .await;
    };
    wait_for("first").await;
    server.drop_watches();
    place.map("after-drop", json!({})).await;
    wait_for("after-drop").await;
    server.stop().await;
    assert!(place.maps().list(&ListParams::default()).await.is_err(), "nobody answers");
    server.serve_again().unwrap();
    place.map("after-stop", json!({})).await;
    wait_for("after-stop").await;
    server.drop_watches();
    place.maps().delete("first", &DeleteParams::default()).await.unwrap();
    server.compact();
    place.map("after-compaction", json!({})).await;
    wait_for("after-compaction").await;
}

#[tokio::test]
async fn the_server_is_away_for_a_while() {
    let Some((place, server)) = Place::with_server("the_server_is_away_for_a_while").await else { return };
    place.map("a", json!({})).await;
    server.away(Duration::from_millis(50)).await.unwrap();
    assert_eq!(place.maps().get("a").await.unwrap().name_any(), "a", "the objects stay");
}

#[tokio::test]
async fn a_bookmark_moves_a_watch_past_a_compaction() {
    let Some((place, server)) = Place::with_server("a_bookmark_moves_a_watch_past_a_compaction").await else {
        return;
    };
    let start = place.maps().list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let stream = place.maps().watch(&WatchParams::default(), &start).await.unwrap();
    pin_mut!(stream);
    server.bookmark_watches();
    let event = soon("a bookmark", stream.next()).await.unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Bookmark(bookmark) if bookmark.metadata.resource_version == start));
}

#[tokio::test]
async fn a_watch_that_is_held_tells_what_it_owes_when_it_is_released() {
    let test = "a_watch_that_is_held_tells_what_it_owes_when_it_is_released";
    let Some((place, server)) = Place::with_server(test).await else { return };
    let start = place.maps().list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let stream = place.maps().watch(&WatchParams::default(), &start).await.unwrap();
    pin_mut!(stream);
    server.hold_watches("configmaps");
    place.map("a", json!({})).await;
    let early = tokio::time::timeout(Duration::from_millis(200), stream.next()).await;
    assert!(early.is_err(), "{early:?}");
    assert!(place.maps().get("a").await.is_ok(), "who asks is told");
    server.release_watches();
    let event = soon("what is owed", stream.next()).await.unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Added(map) if map.name_any() == "a"));
}

#[tokio::test]
async fn requests_are_told_with_who_asked() {
    let Some((place, server)) = Place::with_server("requests_are_told_with_who_asked").await else { return };
    server.forget_requests();
    place.maps().list(&ListParams::default()).await.unwrap();
    place.map("a", json!({})).await;
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    place.maps().patch("a", &dry, &Patch::Merge(json!({}))).await.unwrap();
    let told: Vec<_> =
        server.requests().into_iter().map(|asked| (asked.verb, asked.agent, asked.code)).collect();
    let expected = [("list", 200), ("create", 201), ("patch", 200)]
        .map(|(verb, code)| (verb, "contract".to_owned(), code));
    assert_eq!(told, expected);
    assert_eq!(server.writes(), 1, "a dry run is no write");
}

#[tokio::test]
async fn a_chosen_request_fails_once() {
    let Some((place, server)) = Place::with_server("a_chosen_request_fails_once").await else { return };
    server.fail_next(|asked| asked.verb == "get" && asked.path.ends_with("/a"), 500);
    place.map("a", json!({})).await;
    assert_eq!(refusal(place.maps().get("a").await).0, 500);
    assert!(place.maps().get("a").await.is_ok());
}

#[tokio::test]
async fn an_answer_may_be_lost_though_the_write_was_done() {
    let Some((place, server)) = Place::with_server("an_answer_may_be_lost_though_the_write_was_done").await
    else {
        return;
    };
    place.map("a", json!({})).await;
    server.lose_next_answer(|asked| asked.verb == "patch");
    let patch = Patch::Merge(json!({"data": {"x": "1"}}));
    let _ = place.maps().patch("a", &PatchParams::default(), &patch).await;
    assert_eq!(place.maps().get("a").await.unwrap().data.unwrap()["x"], "1");
}
