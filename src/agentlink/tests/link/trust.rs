//! Who is connected to, who is not, and what is said about it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use peerpods_agentlink::process::{GuestState, LinkProcesses};
use peerpods_agentlink::{Link, LinkError};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use super::support::{Guest, Sandbox, healthy, identity, program};

async fn opened() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    sandbox
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_of_another_cluster_fails_at_once() {
    let (guest, other) = (Guest::on().await, Guest::off().await);
    let _agent = guest.agent().await;
    let sandbox = opened().await;
    let mut target = guest.target();
    target.identity = identity(&other.ca, &guest.ca);
    let started = Instant::now();
    let error = sandbox.links.connect(&sandbox.spec, &target).await.unwrap_err();
    assert!(matches!(&error, LinkError::Untrusted { reason, .. } if reason.contains("alert")), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5), "it was tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_of_another_name_or_cluster_fails_at_once() {
    let (guest, other) = (Guest::on().await, Guest::off().await);
    let _agent = guest.agent().await;
    let sandbox = opened().await;
    let mut other_name = guest.target();
    other_name.server_name = "podvm-other-11111111".to_owned();
    let mut other_cluster = guest.target();
    other_cluster.identity = identity(&guest.ca, &other.ca);
    for target in [other_name, other_cluster] {
        let error = sandbox.links.connect(&sandbox.spec, &target).await.unwrap_err();
        assert!(matches!(&error, LinkError::Untrusted { .. }), "{error}");
        assert!(error.to_string().contains("s1") && error.to_string().contains("certificate"), "{error}");
    }
    assert_eq!(sandbox.links.status(&sandbox.spec).await.unwrap().unwrap().guest, GuestState::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_says_what_was_seen_last() {
    let mut guest = Guest::off().await;
    let sandbox = opened().await;
    let mut target = guest.target();
    target.deadline = Duration::from_millis(900);
    let error = sandbox.links.connect(&sandbox.spec, &target).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("900ms") && text.contains("connection refused"), "{text}");
    assert!(text.contains(&guest.address.to_string()), "{text}");

    let mute = TcpListener::bind(guest.address).await.unwrap();
    let text = sandbox.links.connect(&sandbox.spec, &target).await.unwrap_err().to_string();
    assert!(text.contains("the port is open"), "{text}");

    guest.serve_on(mute, |_| {});
    let text = sandbox.links.connect(&sandbox.spec, &target).await.unwrap_err().to_string();
    assert!(text.contains("Health.Check") && !text.contains("console"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_opens_late_is_found_within_a_quarter_of_a_second() {
    let mut guest = Guest::off().await;
    let _agent = guest.agent().await;
    let sandbox = opened().await;
    let target = guest.target();
    let late = async {
        sleep(Duration::from_millis(1100)).await;
        guest.serve(|_| {}).await;
    };
    let ((), connected) = tokio::join!(late, sandbox.links.connect(&sandbox.spec, &target));
    let connected = connected.unwrap();
    assert!(connected.attempts >= 4, "{connected:?}");
    assert!(connected.port_open_after < Duration::from_millis(1100 + 250 + 250), "{connected:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_hangs_up_may_be_booting_and_is_called_again() {
    let mut guest = Guest::off().await;
    let _agent = guest.agent().await;
    let sandbox = opened().await;
    let rude = TcpListener::bind(guest.address).await.unwrap();
    let target = guest.target();
    let turn = async {
        for _ in 0..3 {
            drop(rude.accept().await.unwrap());
        }
        guest.serve_on(rude, |_| {});
    };
    let ((), connected) = tokio::join!(turn, sandbox.links.connect(&sandbox.spec, &target));
    assert!(connected.unwrap().attempts >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_stops_the_dialling() {
    let guest = Guest::off().await;
    let sandbox = opened().await;
    let rude = TcpListener::bind(guest.address).await.unwrap();
    let target = guest.target();
    let dialling = async {
        let _ = sandbox.links.connect(&sandbox.spec, &target).await;
    };
    assert!(timeout(Duration::from_millis(700), dialling).await.is_err());
    sleep(Duration::from_millis(300)).await;
    while timeout(Duration::from_millis(50), rude.accept()).await.is_ok() {}
    let more = timeout(Duration::from_millis(1200), rude.accept()).await;
    assert!(more.is_err(), "it still dials");
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_again_answers_at_once_while_the_guest_holds_the_line() {
    let mut guest = Guest::on().await;
    let agent = guest.agent().await;
    let sandbox = opened().await;
    let (target, anew) = (guest.target(), guest.target());
    // A daemon that was restarted has a new certificate issued.
    assert_ne!(target.identity.certificate, anew.identity.certificate);
    let first = sandbox.links.connect(&sandbox.spec, &target).await.unwrap();
    let restarted = LinkProcesses::new(program());
    let again = restarted.connect(&sandbox.spec, &anew).await.unwrap();
    assert_eq!(first.agent_after, again.agent_after, "it dialled again");
    assert_eq!(agent.asked.connections.load(Ordering::SeqCst), 1, "it dialled again");
    let status = sandbox.links.status(&sandbox.spec).await.unwrap().unwrap();
    assert_eq!(status.guest, GuestState::Connected);

    guest.shutdown.cancel();
    guest.served.take().unwrap().await.unwrap();
    for _ in 0..100 {
        sleep(Duration::from_millis(20)).await;
        if sandbox.links.status(&sandbox.spec).await.unwrap().unwrap().guest == GuestState::Lost {
            break;
        }
    }
    let mut target = guest.target();
    target.deadline = Duration::from_millis(500);
    let error = sandbox.links.connect(&sandbox.spec, &target).await.unwrap_err();
    assert!(matches!(error, LinkError::Deadline { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_holds_the_line_is_not_believed_to_be_of_another_name_or_cluster() {
    let (guest, other) = (Guest::on().await, Guest::off().await);
    let _agent = guest.agent().await;
    let sandbox = opened().await;
    sandbox.links.connect(&sandbox.spec, &guest.target()).await.unwrap();
    let mut other_name = guest.target();
    other_name.server_name = "podvm-other-11111111".to_owned();
    let mut other_cluster = guest.target();
    other_cluster.identity = identity(&guest.ca, &other.ca);
    for target in [other_name, other_cluster] {
        let error = sandbox.links.connect(&sandbox.spec, &target).await.unwrap_err();
        assert!(matches!(&error, LinkError::Untrusted { .. }), "{error}");
    }
    // What was refused replaced nothing.
    healthy(&sandbox.shim().await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_target_replaces_the_old_for_later_connections() {
    let (first, second) = (Guest::on().await, Guest::on().await);
    let (_one, two) = (first.agent().await, second.agent().await);
    let sandbox = opened().await;
    sandbox.links.connect(&sandbox.spec, &first.target()).await.unwrap();
    sandbox.links.connect(&sandbox.spec, &second.target()).await.unwrap();
    let before = two.asked.connections.load(Ordering::SeqCst);
    healthy(&sandbox.shim().await).await.unwrap();
    assert_eq!(two.asked.connections.load(Ordering::SeqCst), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_makes_no_sense_is_refused_without_showing_keys() {
    let guest = Guest::off().await;
    let sandbox = opened().await;
    let mut target = guest.target();
    target.identity.key = "SECRET".to_owned();
    let error = sandbox.links.connect(&sandbox.spec, &target).await.unwrap_err();
    let text = format!("{error} {error:?} {target:?}");
    assert!(text.contains("client key") && !text.contains("SECRET"), "{text}");
}
