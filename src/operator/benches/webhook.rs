//! What a webhook's answer takes when 1,000 are asked at once, beside a server on the same TLS and HTTP that sends back what it gets.
//!
//! ```text
//! 1,000 tasks, one question each at a time ── 8 HTTP/2 connections over TLS ──▶ echo | webhook, in turn, ROUNDS times
//! ```
//!
//! All of it shares one machine and one process, so the numbers are the ratio's parts, not what a user waits. The third part asks without a
//! network: what an answer costs by itself. `BENCH_ROUNDS` sets the number of turns (8), `BENCH_EACH` that of questions a task asks in one (10).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark fails by panicking")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use k8s_openapi::api::core::v1::Secret;
use peerpods_operator::webhook::certificates::{Serving, Shown, held, make, names_of};
use peerpods_operator::webhook::kataconfigs::Existing;
use peerpods_operator::webhook::pods::Settings;
use peerpods_operator::webhook::server::{KataConfigs, Limits, MUTATE_POD, Question, Webhooks, serve};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const AT_ONCE: usize = 1000;
const CONNECTIONS: usize = 8;

fn main() {
    // `cargo test --all-targets` runs benchmarks too.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (servers, clients) = (runtime(), runtime());
    let made = make::make(&names_of("svc", "ns"), SystemTime::now()).unwrap();
    let serving = Serving::untrusted().unwrap();
    serving.show(&held::serving_of(&Secret { data: Some(held::fresh(&made)), ..Secret::default() }).unwrap());
    let webhooks = Arc::new(Webhooks::new(Settings::default(), Arc::new(Nobody), serving.clone()));
    let webhook = servers.block_on(start_webhook(webhooks.clone()));
    let echo = servers.block_on(start_echo(serving));
    let body = Bytes::from(question());
    println!(
        "a pod of {} bytes, {AT_ONCE} questions at once over {CONNECTIONS} HTTP/2 connections, TLS 1.3",
        body.len()
    );
    clients.block_on(async {
        let tls = client_tls(&made.authority);
        at_once(&tls, echo, webhook, &body).await;
        one_by_one(&tls, echo, webhook, &body).await;
        by_itself(&webhooks, &body).await;
    });
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

async fn at_once(tls: &TlsConnector, echo: SocketAddr, webhook: SocketAddr, body: &Bytes) {
    let (rounds, each) = (number("BENCH_ROUNDS", 8), number("BENCH_EACH", 10));
    let mut samples = [Vec::new(), Vec::new()];
    let mut spent = [Duration::ZERO; 2];
    for round in 0..=rounds {
        for (n, address) in [echo, webhook].into_iter().enumerate() {
            let began = Instant::now();
            let took = turn(tls, address, body, AT_ONCE, each).await;
            // The first turn warms up.
            if round > 0 {
                spent[n] += began.elapsed();
                samples[n].extend(took);
            }
        }
    }
    table("1,000 at once", samples, spent);
}

async fn one_by_one(tls: &TlsConnector, echo: SocketAddr, webhook: SocketAddr, body: &Bytes) {
    let mut samples = [Vec::new(), Vec::new()];
    let mut spent = [Duration::ZERO; 2];
    for (n, address) in [echo, webhook].into_iter().enumerate() {
        let began = Instant::now();
        samples[n] = turn(tls, address, body, 1, 2000).await;
        spent[n] = began.elapsed();
    }
    table("one at a time", samples, spent);
}

async fn by_itself(webhooks: &Webhooks, body: &Bytes) {
    let mut took = Vec::new();
    let all = Instant::now();
    for _ in 0..20_000 {
        let began = Instant::now();
        webhooks.answer(Question::Pod, body).await.unwrap();
        took.push(began.elapsed());
    }
    let spent = all.elapsed();
    let (median, p99) = (quantile(&mut took, 0.5), quantile(&mut took, 0.99));
    println!(
        "{:<16} {:<8} {:>12} {:>12} {:>12.0}/s",
        "without network",
        "webhook",
        ms(median),
        ms(p99),
        20_000.0 / spent.as_secs_f64()
    );
}

fn table(what: &str, mut samples: [Vec<Duration>; 2], spent: [Duration; 2]) {
    let mut p99s = [Duration::ZERO; 2];
    for (n, name) in ["echo", "webhook"].into_iter().enumerate() {
        let rate = samples[n].len() as f64 / spent[n].as_secs_f64();
        let median = quantile(&mut samples[n], 0.5);
        p99s[n] = quantile(&mut samples[n], 0.99);
        println!("{what:<16} {name:<8} {:>12} {:>12} {rate:>12.0}/s", ms(median), ms(p99s[n]));
    }
    let ratio = p99s[1].as_secs_f64() / p99s[0].as_secs_f64();
    let more = p99s[1].saturating_sub(p99s[0]);
    println!("{what:<16} webhook ÷ echo at p99: {ratio:.2}; webhook − echo at p99: {}", ms(more));
}

fn ms(took: Duration) -> String {
    format!("{:.3} ms", took.as_secs_f64() * 1e3)
}

fn quantile(samples: &mut [Duration], part: f64) -> Duration {
    samples.sort_unstable();
    samples[((samples.len() as f64 * part) as usize).min(samples.len() - 1)]
}

/// `at_once` tasks ask `each` questions one after the other.
async fn turn(
    tls: &TlsConnector,
    address: SocketAddr,
    body: &Bytes,
    at_once: usize,
    each: usize,
) -> Vec<Duration> {
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS.min(at_once) {
        senders.push(connect(tls, address).await);
    }
    let tasks = (0..at_once).map(|n| {
        let (mut sender, body) = (senders[n % senders.len()].clone(), body.clone());
        tokio::spawn(async move {
            let mut took = Vec::with_capacity(each);
            for _ in 0..each {
                let began = Instant::now();
                sender.ready().await.unwrap();
                let request = Request::post(format!("https://svc.ns.svc{MUTATE_POD}"))
                    .body(Full::new(body.clone()))
                    .unwrap();
                let response = sender.send_request(request).await.unwrap();
                assert!(response.status().is_success());
                response.into_body().collect().await.unwrap();
                took.push(began.elapsed());
            }
            took
        })
    });
    let mut took = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        took.extend(task.await.unwrap());
    }
    took
}

async fn connect(tls: &TlsConnector, address: SocketAddr) -> http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let stream = tls.connect(ServerName::try_from("svc.ns.svc").unwrap(), stream).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn client_tls(authority: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn start_webhook(webhooks: Arc<Webhooks>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, webhooks, Limits::default(), std::future::pending()));
    address
}

/// The floor: the same TLS, the same HTTP, and nothing done.
async fn start_echo(serving: Serving) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(Shown::from(serving)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let tls = tls.clone();
            tokio::spawn(async move {
                stream.set_nodelay(true).unwrap();
                let stream = tls.accept(stream).await.unwrap();
                let service = service_fn(|request: Request<Incoming>| async {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    Ok::<_, Infallible>(Response::new(Full::new(body)))
                });
                let mut builder = Builder::new(TokioExecutor::new()).http2_only();
                builder.http2().max_concurrent_streams(1000);
                let _either = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

struct Nobody;

#[async_trait]
impl KataConfigs for Nobody {
    async fn existing(&self) -> Result<Vec<Existing>, String> {
        Ok(Vec::new())
    }
}

/// A pod as a ReplicaSet makes it, with what the API server adds.
fn question() -> Vec<u8> {
    let container = |name: &str| {
        json!({
            "name": name, "image": format!("registry.example.com/team/{name}@sha256:{}", "0a".repeat(32)),
            "env": (0..12).map(|n| json!({"name": format!("VARIABLE_{n}"), "value": format!("some value of variable {n}")})).collect::<Vec<_>>(),
            "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
            "resources": {"limits": {"cpu": "500m", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "256Mi"}},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10},
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10},
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}, {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent",
        })
    };
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "web-7d4b9c6f5-", "namespace": "shop", "labels": {"app": "web", "pod-template-hash": "7d4b9c6f5"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d4b9c6f5", "uid": "5d7b1c0a-2c5e-4a39-9d0b-4f8c3b2a1e00", "controller": true, "blockOwnerDeletion": true}],
            "managedFields": [{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:image": {}, "f:resources": {}}}}}}],
        },
        "spec": {
            "runtimeClassName": "kata-remote-cc", "restartPolicy": "Always", "serviceAccountName": "web",
            "initContainers": [container("migrate")], "containers": [container("web"), container("proxy")],
            "volumes": [{"name": "config", "configMap": {"name": "web"}}, {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        },
    });
    serde_json::to_vec(&json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "0c9a8d74-9cb7-44dd-b98e-09fd62def2f4", "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"}, "namespace": "shop", "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "groups": ["system:serviceaccounts", "system:authenticated"]},
            "object": object, "oldObject": null, "dryRun": false,
        },
    }))
    .unwrap()
}
