//! What a restarted service does before the provider has said a word.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use peerpods_hypervisor::failure::StatusCode;
use peerpods_hypervisor::journal::Journal as _;
use peerpods_hypervisor::record::{InstanceRecord, Stage, TunnelRecord};
use peerpods_provider::ErrorKind;
use peerpods_provider::fake::{Calls, Fault, Operation};

use crate::place::{Place, record};

/// Longer than any test.
const FOREVER: Fault = Fault::Delay(Duration::from_secs(3600));
/// No answer of ours takes so long on the slowest machine; the provider's take longer still.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sandboxes of every stage; of some the network namespace is gone.
async fn write_journal(place: &Place, count: u32) {
    let journal = place.journal();
    let stages = [Stage::Created, Stage::Starting, Stage::Running, Stage::Running, Stage::Stopping];
    for n in 0..count {
        let stage = stages[n as usize % stages.len()];
        let mut record = record(place, &format!("sandbox-{n:03}"), stage, 555_000 + n);
        if stage != Stage::Created {
            let address = "127.1.0.1".parse().unwrap();
            record.instance = Some(InstanceRecord { id: format!("fake-{n}"), addresses: vec![address] });
            record.tunnel = Some(TunnelRecord { pod_interface: "eth0".into(), remote: address, local: None });
        }
        if n % 7 == 0 {
            record.netns = "/run/netns/long-gone".into();
        }
        journal.append(&record).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sandboxes_are_served_at_once_while_provider_and_agents_hang() {
    let mut place = Place::new();
    place.config.netns_gone_ttl = Duration::from_secs(3600);
    place.config.unstarted_ttl = Duration::from_secs(3600 * 24 * 365 * 100);
    write_journal(&place, 200).await;
    for operation in [Operation::Verify, Operation::Get, Operation::Delete] {
        place.cloud.script(operation, Calls::All, FOREVER);
    }
    place.links.hang.store(true, Ordering::SeqCst);

    let began = Instant::now();
    let running =
        tokio::time::timeout(PATIENCE, place.open()).await.expect("the service waits for the provider");
    let opened = began.elapsed();
    assert_eq!(running.service.list().len(), 200);
    let stop = tokio::time::timeout(PATIENCE, running.stop("sandbox-002"));
    stop.await.expect("StopVM waits for the provider");
    let stopped = began.elapsed();
    assert_eq!(place.on_disk("sandbox-002").unwrap()["stage"], "stopping");
    eprintln!("200 sandboxes on record: ready after {opened:.1?}, a StopVM answered after {stopped:.1?}");

    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = place.cloud.calls(Operation::Delete) + place.cloud.calls(Operation::Get);
    assert!((1..=32).contains(&asked), "{asked} calls of the provider began together");
    running.shutdown.cancel();
}

#[tokio::test]
async fn a_create_waits_for_a_provider_that_is_slow_and_one_that_fails_for_a_moment() {
    let place = Place::new();
    place.cloud.script(Operation::Verify, Calls::First(2), Fault::Fail(ErrorKind::Transient));
    place.cloud.script(Operation::Verify, Calls::Nth(3), Fault::Delay(Duration::from_millis(300)));
    let running = place.open().await;
    running.create("one").await.unwrap();
    assert_eq!(place.cloud.calls(Operation::Verify), 3);
    running.start("one").await.unwrap();
    running.end().await;
}

#[tokio::test]
async fn a_start_of_a_sandbox_made_before_the_restart_waits_for_the_provider() {
    let place = Place::new();
    let running = place.open().await;
    running.create("one").await.unwrap();
    running.end().await;
    place.cloud.script(Operation::Verify, Calls::Nth(2), Fault::Delay(Duration::from_millis(500)));
    let running = place.open().await;
    running.start("one").await.unwrap();
    assert_eq!(place.cloud.calls(Operation::Verify), 2);
    running.end().await;
}

#[tokio::test]
async fn an_unusable_provider_ends_a_service_that_has_nothing_and_not_one_that_has_sandboxes() {
    let place = Place::new();
    let running = place.open().await;
    running.create("one").await.unwrap();
    running.end().await;

    place.cloud.script(Operation::Verify, Calls::All, Fault::Fail(ErrorKind::Denied));
    let running = place.open().await;
    let refused = running.create("two").await.unwrap_err();
    assert_eq!(refused.code(), StatusCode::Unavailable);
    assert!(refused.chain().contains("denied") && refused.chain().contains("again"), "{}", refused.chain());
    assert!(!running.shutdown.is_cancelled());
    running.stop("one").await;
    running.gone("one").await;
    running.end().await;

    let running = place.open().await;
    running.shutdown.cancelled().await;
    running.end().await;
    let ended = peerpods_hypervisor::run(
        peerpods_hypervisor::Config { socket: place.dir.path().join("h.sock"), ..place.config.clone() },
        place.parts(),
        tokio_util::sync::CancellationToken::new(),
    );
    let error = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("provider fake is not usable"), "{error}");
}

#[tokio::test]
async fn a_service_that_is_set_to_another_region_does_not_take_vms_for_gone() {
    let place = Place::new();
    place.cloud.set_location("here");
    let running = place.open().await;
    running.create("one").await.unwrap();
    running.start("one").await.unwrap();
    running.create("two").await.unwrap();
    running.end().await;

    place.cloud.set_location("there");
    let opened = peerpods_hypervisor::open(
        place.config.clone(),
        place.parts(),
        tokio_util::sync::CancellationToken::new(),
    );
    let Err(error) = opened.await else { panic!("it would have lost a VM") };
    let text = error.to_string();
    assert!(text.starts_with("1 sandboxes have their VMs at fake in here (the first is one)"), "{text}");
    assert_eq!(place.cloud.machines().len(), 1);

    place.cloud.set_location("here");
    let running = place.open().await;
    running.stop("one").await;
    running.gone("one").await;
    running.end().await;
    assert!(place.cloud.machines().is_empty());
}

#[tokio::test]
async fn what_an_earlier_run_made_is_deleted_although_its_record_knows_of_no_vm() {
    let place = Place::new();
    let running = place.open().await;
    running.create("one").await.unwrap();
    running.end().await;
    let created = std::fs::read_to_string(place.journal_dir().join("one.json")).unwrap();
    let running = place.open().await;
    running.start("one").await.unwrap();
    running.end().await;
    // As a crash between the record of the creation and the provider's answer leaves it.
    let crashed = created.replace("\"created\"", "\"starting\"");
    assert_ne!(crashed, created);
    std::fs::write(place.journal_dir().join("one.json"), crashed).unwrap();
    let restarted = place.open().await;
    restarted.gone("one").await;
    assert_eq!(place.cloud.leftovers(), Vec::<String>::new());
    assert_eq!(place.cloud.born(), 1);
    restarted.end().await;
}
