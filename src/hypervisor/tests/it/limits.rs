//! The limit on VMs of a node, through the service.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use peerpods_hypervisor::failure::StatusCode;
use peerpods_provider::ErrorKind;
use peerpods_provider::fake::{Calls, Fault, Operation};

use crate::place::{Place, Running, id};

fn limited(limit: u32) -> Place {
    let mut place = Place::new();
    place.config.limit_per_node = Some(limit);
    place
}

/// That there is no room, and that the refusal says so.
async fn refused(running: &Running, holder: &str) {
    let refusal = running.create("late").await.unwrap_err();
    assert_eq!(refusal.code(), StatusCode::ResourceExhausted);
    let text = refusal.chain();
    for word in
        ["PEERPODS_LIMIT_PER_NODE", "may have 1 VMs", &format!("default/web ({holder})"), "raise the limit"]
    {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(
        running.service.get(&id("late")).is_none_or(|left| left.record.is_none()),
        "nothing is left of it"
    );
}

#[tokio::test]
async fn a_full_node_refuses_names_the_holders_and_has_room_after_a_confirmed_deletion() {
    let place = limited(1);
    let running = place.open().await;
    running.create("first").await.unwrap();
    running.create("second").await.unwrap();
    running.start("first").await.unwrap();
    let refusal = running.start("second").await.unwrap_err();
    assert_eq!(refusal.code(), StatusCode::ResourceExhausted, "{}", refusal.chain());
    assert!(refusal.chain().contains("default/web (first)"), "{}", refusal.chain());
    running.gone("second").await;
    refused(&running, "first").await;
    assert_eq!((place.cloud.born(), place.cloud.calls(Operation::Create)), (1, 1));

    place.cloud.script(Operation::Delete, Calls::All, Fault::Fail(ErrorKind::Transient));
    running.stop("first").await;
    refused(&running, "first").await;
    place.cloud.heal();
    running.gone("first").await;
    running.create("third").await.unwrap();
    running.start("third").await.unwrap();
    running.end().await;
}

#[tokio::test]
async fn holders_are_the_same_after_a_restart() {
    let place = limited(1);
    let running = place.open().await;
    running.create("idle").await.unwrap();
    running.create("first").await.unwrap();
    running.start("first").await.unwrap();
    running.end().await;
    let running = place.open().await;
    refused(&running, "first").await;
    assert_eq!(running.start("idle").await.unwrap_err().code(), StatusCode::ResourceExhausted);
    running.stop("first").await;
    running.gone("first").await;
    running.create("third").await.unwrap();
    running.start("third").await.unwrap();
    running.end().await;
}

#[tokio::test]
async fn a_failed_start_gives_its_slot_back() {
    let place = limited(1);
    place.cloud.script(Operation::Create, Calls::Nth(1), Fault::Fail(ErrorKind::Denied));
    let running = place.open().await;
    running.create("first").await.unwrap();
    running.start("first").await.unwrap_err();
    running.gone("first").await;
    running.create("second").await.unwrap();
    running.start("second").await.unwrap();
    running.end().await;
}

#[tokio::test]
async fn without_a_limit_nobody_is_refused() {
    let mut place = Place::new();
    place.config.limit_per_node = None;
    let running = place.open().await;
    for n in 0..15 {
        running.create(&format!("s{n}")).await.unwrap();
        running.start(&format!("s{n}")).await.unwrap();
    }
    running.end().await;
}

/// Many sandboxes at once want fewer slots than they are; deletions fail now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_never_more_vms_than_the_limit_however_many_want_one() {
    const LIMIT: usize = 4;
    let place = limited(4);
    for n in (2..60).step_by(3) {
        place.cloud.script(Operation::Delete, Calls::Nth(n), Fault::Fail(ErrorKind::Transient));
        place.cloud.script(Operation::Create, Calls::Nth(n), Fault::LoseAnswer(ErrorKind::Transient));
    }
    let running = Arc::new(place.open().await);
    let (most, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let watcher = {
        let (cloud, most, over) = (place.cloud.clone(), most.clone(), over.clone());
        tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                most.fetch_max(cloud.machines().len(), Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    let lives: Vec<_> = (0..30_u64).map(|n| tokio::spawn(live(running.clone(), n))).collect();
    let mut started = 0;
    for life in lives {
        started += u32::from(life.await.unwrap());
    }
    over.store(true, Ordering::SeqCst);
    watcher.await.unwrap();
    let most = most.load(Ordering::SeqCst);
    assert!((1..=LIMIT).contains(&most), "{most} VMs at once");
    assert!(started >= 4, "{started} of 30 were started");
    assert_eq!(place.cloud.leftovers(), Vec::<String>::new());
}

async fn live(running: Arc<Running>, n: u64) -> bool {
    let name = format!("s{n}");
    tokio::time::sleep(Duration::from_millis(n * 13 % 300)).await;
    let started = running.create(&name).await.is_ok() && running.start(&name).await.is_ok();
    tokio::time::sleep(Duration::from_millis(n * 29 % 200)).await;
    running.stop(&name).await;
    running.gone(&name).await;
    started
}
