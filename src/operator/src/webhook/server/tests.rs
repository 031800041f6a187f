mod client;

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use async_trait::async_trait;
use hyper::{Method, StatusCode};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::*;
use crate::webhook::certificates::held::{fresh, serving_of};
use crate::webhook::certificates::make::{Made, make};
use crate::webhook::certificates::{Serving, names_of};
use crate::webhook::kataconfigs::Existing;
use crate::webhook::pods::Settings;
use client::{Client, Http};

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What there is, of either kind: as told, or as soon as somebody says so.
#[derive(Default)]
struct Told {
    existing: Vec<Existing>,
    error: Option<String>,
    gate: Option<Arc<Notify>>,
}

#[async_trait]
impl Configs for Told {
    fn namespace(&self) -> &str {
        "ns"
    }

    async fn peerpodconfigs(&self) -> Result<Vec<Existing>, String> {
        self.kataconfigs().await
    }

    async fn kataconfigs(&self) -> Result<Vec<Existing>, String> {
        if let Some(gate) = &self.gate {
            gate.notified().await;
        }
        match &self.error {
            Some(error) => Err(error.clone()),
            None => Ok(self.existing.clone()),
        }
    }
}

struct Server {
    client: Client,
    serving: Serving,
    webhooks: Arc<Webhooks>,
    shutdown: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), TlsError>>,
}

fn certificate() -> Made {
    make(&names_of("svc", "ns"), SystemTime::now()).unwrap()
}

fn show(serving: &Serving, made: &Made) {
    serving.show(&serving_of(&Secret { data: Some(fresh(made)), ..Secret::default() }).unwrap());
}

impl Server {
    async fn start(kataconfigs: Told, limits: Limits) -> Self {
        let made = certificate();
        let server = Self::without_certificate(kataconfigs, limits, &made.authority).await;
        show(&server.serving, &made);
        server
    }

    async fn without_certificate(kataconfigs: Told, limits: Limits, trusted: &str) -> Self {
        let serving = Serving::untrusted().unwrap();
        let webhooks = Arc::new(Webhooks::new(Settings::default(), Arc::new(kataconfigs), serving.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(listener.local_addr().unwrap(), trusted);
        let (shutdown, asked) = oneshot::channel::<()>();
        let serve = serve(listener, webhooks.clone(), limits, async {
            let _either = asked.await;
        });
        Self { client, serving, webhooks, shutdown: Some(shutdown), running: tokio::spawn(serve) }
    }

    fn end(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }
}

async fn plain() -> Server {
    Server::start(Told::default(), Limits::default()).await
}

fn review(kind: Value, object: Value) -> Vec<u8> {
    let request = json!({"uid": "u1", "kind": kind, "name": "new", "namespace": "ns", "operation": "CREATE", "object": object});
    serde_json::to_vec(
        &json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}),
    )
    .unwrap()
}

fn pod(annotation: &str) -> Vec<u8> {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "annotations": {"a": annotation}},
        "spec": {"runtimeClassName": "kata-remote-cc", "containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]},
    });
    review(json!({"group": "", "version": "v1", "kind": "Pod"}), object)
}

fn kataconfig(spec: Value) -> Vec<u8> {
    let kind = json!({"group": "kataconfiguration.openshift.io", "version": "v1", "kind": "KataConfig"});
    review(kind, json!({"metadata": {"name": "new"}, "spec": spec}))
}

fn response(body: &[u8]) -> Value {
    let mut review: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(review["response"]["uid"], "u1");
    review["response"].take()
}

#[tokio::test]
async fn a_pod_is_answered_over_either_http_and_either_tls() {
    let server = plain().await;
    for http in [Http::One, Http::Two] {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let (status, body) = server.client.with_tls(version).post(http, MUTATE_POD, pod("x")).await;
            let response = response(&body);
            assert_eq!(
                (status, &response["allowed"], &response["patchType"]),
                (StatusCode::OK, &json!(true), &json!("JSONPatch"))
            );
        }
    }
    assert_eq!(server.webhooks.counts().patched.load(Ordering::Relaxed), 4);
    let took = |question| server.webhooks.counts().took(question).counted().count();
    assert_eq!((took(Question::Pod), took(Question::KataConfig)), (4, 0));
}

#[tokio::test]
async fn a_connection_answers_one_question_after_the_other() {
    let server = plain().await;
    for http in [Http::One, Http::Two] {
        let mut connection = server.client.connect(http).await;
        for _ in 0..5 {
            let (status, _) = connection.send(Method::POST, MUTATE_POD, pod("x")).await;
            assert_eq!(status, StatusCode::OK);
        }
    }
}

#[tokio::test]
async fn a_wrong_kind_is_answered_and_no_review_is_a_bad_request() {
    let server = plain().await;
    let (status, body) = server.client.post(Http::Two, MUTATE_POD, kataconfig(json!({}))).await;
    assert_eq!(status, StatusCode::OK);
    let message = response(&body)["status"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("not about kataconfiguration.openshift.io/v1 KataConfig"), "{message}");

    let (status, body) = server.client.post(Http::One, MUTATE_POD, b"{\"kind\": 1}".to_vec()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(
        text.starts_with("/mutate-v1-pod: no AdmissionReview of admission.k8s.io/v1: kind: invalid type"),
        "{text}"
    );
    assert_eq!(server.webhooks.counts().malformed.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn three_mebibytes_are_answered_and_more_than_the_limit_is_refused_with_its_size() {
    let server = plain().await;
    for http in [Http::One, Http::Two] {
        let (status, body) = server.client.post(http, MUTATE_POD, pod(&"x".repeat(3 << 20))).await;
        assert_eq!((status, &response(&body)["allowed"]), (StatusCode::OK, &json!(true)));
        let (status, body) = server.client.post(http, MUTATE_POD, pod(&"x".repeat(5 << 20))).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.starts_with("/mutate-v1-pod: the body is larger than 4194304 bytes"), "{text}");
    }
}

#[tokio::test]
async fn room_for_one_large_body_is_given_back_when_it_is_answered() {
    let limits = Limits { bodies: 0, ..Limits::default() };
    let server = Server::start(Told::default(), limits).await;
    let mut connection = server.client.connect(Http::Two).await;
    for _ in 0..4 {
        let (status, _) = connection.send(Method::POST, MUTATE_POD, pod(&"x".repeat(3 << 20))).await;
        assert_eq!(status, StatusCode::OK);
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_told_what_there_is() {
    let server = plain().await;
    let mut connection = server.client.connect(Http::One).await;
    for (method, path, expected) in [
        (Method::POST, "/", StatusCode::NOT_FOUND),
        (Method::POST, "/mutate-v1-pod/", StatusCode::NOT_FOUND),
        (Method::GET, MUTATE_POD, StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, HEALTHZ, StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, HEALTHZ, StatusCode::OK),
        (Method::GET, READYZ, StatusCode::OK),
    ] {
        let (status, body) = connection.send(method, path, Vec::new()).await;
        assert_eq!(status, expected, "{path}");
        assert!(!body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn kataconfigs_and_peerpodconfigs_are_judged() {
    let first = Existing { name: "first".to_owned(), being_deleted: false };
    let server = Server::start(Told { existing: vec![first], ..Told::default() }, Limits::default()).await;
    let (_, body) = server.client.post(Http::Two, VALIDATE_KATACONFIG, kataconfig(json!({}))).await;
    let response_ = response(&body);
    assert_eq!(response_["allowed"], false);
    assert!(response_["status"]["message"].as_str().unwrap().contains("there is \"first\""), "{response_}");
    let kind = json!({"group": "confidentialcontainers.org", "version": "v1alpha1", "kind": "PeerPodConfig"});
    let second = review(kind.clone(), json!({"metadata": {}, "spec": {}}));
    let (_, body) = server.client.post(Http::Two, VALIDATE_PEERPODCONFIG, second).await;
    let message = response(&body)["status"]["message"].clone();
    assert!(message.as_str().unwrap().contains("one PeerPodConfig, and there is \"first\""), "{message}");

    let server = plain().await;
    let (_, body) =
        server.client.post(Http::Two, VALIDATE_KATACONFIG, kataconfig(json!({"logLevel": "debug"}))).await;
    assert_eq!(response(&body)["allowed"], true);
    let bad = review(kind, json!({"metadata": {}, "spec": {"limit": "ten"}}));
    let (_, body) = server.client.post(Http::Two, VALIDATE_PEERPODCONFIG, bad).await;
    let message = response(&body)["status"]["message"].clone();
    assert!(message.as_str().unwrap().starts_with("spec.limit: \"ten\": want how many VMs"), "{message}");
}

#[tokio::test]
async fn while_nobody_can_say_whether_there_is_a_kataconfig_none_is_taken() {
    let told = Told { error: Some("the API server is away".to_owned()), ..Told::default() };
    let server = Server::start(told, Limits::default()).await;
    let (_, body) = server.client.post(Http::Two, VALIDATE_KATACONFIG, kataconfig(json!({}))).await;
    let response = response(&body);
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(503)));
    assert!(response["status"]["message"].as_str().unwrap().contains("the API server is away"), "{response}");
}

#[tokio::test]
async fn without_a_certificate_health_is_answered_and_nobody_is_asked_to_trust() {
    let made = certificate();
    let server = Server::without_certificate(Told::default(), Limits::default(), &made.authority).await;
    let probe = server.client.like_kubelet();
    assert_eq!(probe.get(HEALTHZ).await.0, StatusCode::OK);
    let (status, body) = probe.get(READYZ).await;
    assert_eq!(
        (status, body.as_ref()),
        (StatusCode::SERVICE_UNAVAILABLE, &b"the webhook's certificate is not there yet\n"[..])
    );
    assert!(server.client.try_connect(Http::Two).await.is_err());
    show(&server.serving, &made);
    assert_eq!(server.client.get(READYZ).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let server = plain().await;
    let mut before = server.client.connect(Http::Two).await;
    let made = certificate();
    show(&server.serving, &made);
    assert_eq!(before.send(Method::POST, MUTATE_POD, pod("x")).await.0, StatusCode::OK);
    assert!(
        server.client.try_connect(Http::Two).await.is_err(),
        "who trusts the old one alone is not shown it"
    );
    assert_eq!(server.client.trusting(&made.authority).get(READYZ).await.0, StatusCode::OK);
}

#[tokio::test]
async fn who_says_nothing_is_not_kept() {
    let short = Duration::from_millis(100);
    let limits = Limits { handshake: short, head: short, ..Limits::default() };
    let server = Server::start(Told::default(), limits).await;
    tokio::time::timeout(PATIENCE, server.client.says_no_hello()).await.unwrap();
    for http in [Http::One, Http::Two] {
        tokio::time::timeout(PATIENCE, server.client.says_nothing(http)).await.unwrap();
    }
}

#[tokio::test]
async fn who_has_asked_is_kept_longer_than_an_api_server_keeps_a_connection() {
    assert!(Limits::default().idle > Duration::from_secs(90));
    let limits =
        Limits { head: Duration::from_millis(50), idle: Duration::from_millis(800), ..Limits::default() };
    let server = Server::start(Told::default(), limits).await;
    let mut kept = server.client.connect(Http::One).await;
    for _ in 0..2 {
        assert_eq!(kept.send(Method::POST, MUTATE_POD, pod("x")).await.0, StatusCode::OK);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(kept.try_send(Method::POST, MUTATE_POD, pod("x")).await.is_err(), "and not for ever");
}

#[tokio::test]
async fn near_the_end_peers_are_asked_to_come_no_more() {
    let limits = Limits { linger: PATIENCE, ..Limits::default() };
    let mut server = Server::start(Told::default(), limits).await;
    let asked = format!("GET {HEALTHZ} HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(!server.client.raw(&asked).await.contains("connection: close"));
    server.end();
    while server.webhooks.ready().is_ok() {
        tokio::task::yield_now().await;
    }
    let answer = server.client.raw(&asked).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_told_and_not_waited_for() {
    let limits = Limits { body_time: Duration::from_millis(100), ..Limits::default() };
    let server = Server::start(Told::default(), limits).await;
    let head = format!("POST {MUTATE_POD} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{");
    let answer = tokio::time::timeout(PATIENCE, server.client.raw(&head)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let server = Server::start(Told::default(), Limits { connections: 1, ..Limits::default() }).await;
    let first = server.client.connect(Http::One).await;
    let client = server.client.clone();
    let second = tokio::spawn(async move { client.get(HEALTHZ).await.0 });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!second.is_finished());
    drop(first);
    assert_eq!(tokio::time::timeout(PATIENCE, second).await.unwrap().unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn an_end_is_told_first_and_what_is_under_way_is_answered() {
    let gate = Arc::new(Notify::new());
    let told = Told { gate: Some(gate.clone()), ..Told::default() };
    let limits = Limits { linger: Duration::from_millis(500), drain: PATIENCE, ..Limits::default() };
    let mut server = Server::start(told, limits).await;
    let mut kept = server.client.connect(Http::Two).await;
    let client = server.client.clone();
    let slow =
        tokio::spawn(async move { client.post(Http::Two, VALIDATE_KATACONFIG, kataconfig(json!({}))).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.end();
    // Still answered, and not ready any more.
    while server.webhooks.ready().is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(kept.send(Method::GET, READYZ, Vec::new()).await.0, StatusCode::SERVICE_UNAVAILABLE);
    // No new connection once the linger is over; the one that waits is answered all the same.
    while server.client.try_connect(Http::Two).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    gate.notify_one();
    assert_eq!(slow.await.unwrap().0, StatusCode::OK);
    drop(kept);
    tokio::time::timeout(PATIENCE, server.running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn who_does_not_end_in_time_is_cut_off() {
    let told = Told { gate: Some(Arc::new(Notify::new())), ..Told::default() };
    let short = Duration::from_millis(50);
    let mut server = Server::start(told, Limits { linger: short, drain: short, ..Limits::default() }).await;
    let client = server.client.clone();
    let stuck =
        tokio::spawn(
            async move { client.try_post(Http::Two, VALIDATE_KATACONFIG, kataconfig(json!({}))).await },
        );
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.end();
    tokio::time::timeout(PATIENCE, server.running).await.unwrap().unwrap().unwrap();
    assert!(stuck.await.unwrap().is_err());
}
