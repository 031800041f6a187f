//! Creations that fail, against a cloud that fails on cue.

use std::time::{Duration, Instant};

use peerpods_hypervisor::failure::StatusCode;
use peerpods_provider::ErrorKind;
use peerpods_provider::fake::{Calls, Fault, Operation};

use crate::place::{Place, Running, id};

async fn created(place: &Place) -> Running {
    let running = place.open().await;
    running.create("one").await.unwrap();
    running
}

/// How often the record says that the provider was asked.
fn counted(running: &Running) -> usize {
    running.service.get(&id("one")).unwrap().record.unwrap().creations_unix_ms.len()
}

#[tokio::test]
async fn a_creation_that_fails_for_a_moment_is_repeated_and_one_vm_results() {
    for kind in [ErrorKind::Transient, ErrorKind::Throttled, ErrorKind::Capacity] {
        let place = Place::new();
        place.cloud.script(Operation::Create, Calls::First(1), Fault::Fail(kind));
        let running = created(&place).await;
        running.start("one").await.unwrap();
        assert_eq!((place.cloud.calls(Operation::Create), place.cloud.born()), (2, 1), "{kind}");
        assert_eq!(counted(&running), 2, "{kind}");
        running.end().await;
    }
}

#[tokio::test]
async fn a_vm_whose_answer_was_lost_is_adopted_and_not_made_again() {
    let place = Place::new();
    place.cloud.script(Operation::Create, Calls::All, Fault::LoseAnswer(ErrorKind::Transient));
    place.cloud.script(Operation::Get, Calls::First(2), Fault::Fail(ErrorKind::Transient));
    let running = created(&place).await;
    running.start("one").await.unwrap();
    assert_eq!((place.cloud.calls(Operation::Create), place.cloud.born()), (1, 1));
    running.end().await;
}

#[tokio::test]
async fn the_answer_to_the_last_creation_may_be_lost_as_well() {
    let place = Place::new();
    place.cloud.script(Operation::Create, Calls::First(2), Fault::Fail(ErrorKind::Transient));
    place.cloud.script(Operation::Create, Calls::Nth(3), Fault::LoseAnswer(ErrorKind::Transient));
    let running = created(&place).await;
    running.start("one").await.unwrap();
    assert_eq!((place.cloud.calls(Operation::Create), place.cloud.born()), (3, 1));
    running.end().await;
}

#[tokio::test]
async fn a_permanent_error_is_told_at_once_and_nothing_is_asked_again() {
    for (kind, code) in [
        (ErrorKind::Quota, StatusCode::ResourceExhausted),
        (ErrorKind::Denied, StatusCode::PermissionDenied),
        (ErrorKind::Invalid, StatusCode::InvalidArgument),
        (ErrorKind::NotFound, StatusCode::FailedPrecondition),
    ] {
        let place = Place::new();
        place.cloud.script(Operation::Create, Calls::All, Fault::Fail(kind));
        let running = created(&place).await;
        let failure = running.start("one").await.unwrap_err();
        assert_eq!(failure.code(), code, "{}", failure.chain());
        running.gone("one").await;
        assert_eq!(place.cloud.calls(Operation::Create), 1, "{kind}");
        running.end().await;
    }
}

#[tokio::test]
async fn three_creations_are_all_and_the_error_lists_them_with_code_request_and_advice() {
    let place = Place::new();
    place.cloud.script(Operation::Create, Calls::All, Fault::Fail(ErrorKind::Transient));
    place.cloud.script(Operation::Delete, Calls::All, Fault::Fail(ErrorKind::Transient));
    let running = created(&place).await;
    let failure = running.start("one").await.unwrap_err();
    let text = failure.chain();
    assert_eq!(failure.code(), StatusCode::Unavailable);
    for word in [
        "3 attempts failed",
        "code Scripted request scripted-request",
        "10 minutes",
        "try: ",
        "the script says so",
    ] {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert_eq!(place.cloud.calls(Operation::Create), 3);
    assert_eq!(place.on_disk("one").unwrap()["creations_unix_ms"].as_array().unwrap().len(), 3);
    place.cloud.heal();
    running.gone("one").await;
    running.end().await;
}

#[tokio::test]
async fn the_pause_a_provider_asks_for_is_kept() {
    let place = Place::new();
    let pause = Duration::from_millis(1500);
    place.cloud.script(Operation::Create, Calls::Nth(1), Fault::Fail(ErrorKind::Throttled));
    place.cloud.script(Operation::Create, Calls::Nth(1), Fault::AskToWait(pause));
    let running = created(&place).await;
    let began = Instant::now();
    running.start("one").await.unwrap();
    assert!(began.elapsed() >= pause);
    running.end().await;
}

#[tokio::test]
async fn no_creation_begins_that_the_deadline_does_not_cover() {
    let mut place = Place::new();
    place.config.start_deadline = Duration::from_secs(5);
    place.cloud.script(Operation::Create, Calls::All, Fault::Fail(ErrorKind::Throttled));
    place.cloud.script(Operation::Create, Calls::All, Fault::AskToWait(Duration::from_secs(3600)));
    let running = created(&place).await;
    let failure = running.start("one").await.unwrap_err();
    assert!(failure.chain().contains("PROXY_TIMEOUT"), "{}", failure.chain());
    assert_eq!(failure.code(), StatusCode::ResourceExhausted, "the provider's error, not the deadline's");
    assert_eq!(place.cloud.calls(Operation::Create), 1);
    running.end().await;
}

#[tokio::test]
async fn a_vm_that_stopped_by_itself_is_told_and_not_made_again() {
    let place = Place::new();
    place.cloud.script(Operation::Create, Calls::All, Fault::DieAfter(Duration::ZERO));
    place.cloud.explain("the cloud took it back");
    place.links.hang.store(true, std::sync::atomic::Ordering::SeqCst);
    let running = created(&place).await;
    let failure = running.start("one").await.unwrap_err();
    let text = failure.chain();
    assert!(text.contains("stopped by itself") && text.ends_with(": the cloud took it back"), "{text}");
    running.gone("one").await;
    assert_eq!(place.cloud.born(), 1);
    assert_eq!(place.cloud.leftovers(), Vec::<String>::new());
    running.end().await;
}

#[tokio::test]
async fn a_question_for_the_address_that_fails_does_not_end_a_start() {
    let place = Place::new();
    place.cloud.script(Operation::Create, Calls::All, Fault::StayPending(Duration::from_secs(1)));
    place.cloud.script(Operation::Get, Calls::First(2), Fault::Fail(ErrorKind::Throttled));
    let running = created(&place).await;
    running.start("one").await.unwrap();
    assert_eq!(place.cloud.born(), 1);
    running.end().await;
}
