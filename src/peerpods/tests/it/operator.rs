//! The operator and the webhook as one process, against an API server of the test's own.

use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, PostParams};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peerpods_crds::KataConfig;
use peerpods_test_apiserver::Server;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

const NAMESPACE: &str = "peerpods";
const LEASE: &str = "peerpods-operator";

struct Bench {
    server: Server,
    client: Client,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let server = Server::start().await.unwrap();
        let client = server.client("test").unwrap();
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in peerpods_crds::all() {
            definitions.create(&PostParams::default(), &definition.object).await.unwrap();
        }
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace: Namespace =
            serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } })).unwrap();
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("kubeconfig"), server.kubeconfig()).unwrap();
        Self { server, client, dir }
    }

    /// One replica, and where it answers about its health.
    fn replica(&self, roles: &str) -> (Child, SocketAddr) {
        let health = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_peerpods"))
            .args(["run", "--roles", roles, "--namespace", NAMESPACE, "--webhook-address", "127.0.0.1:0"])
            .args(["--health-address", &health.to_string(), "--operator-image", "image:1"])
            .env_clear()
            .env("KUBECONFIG", self.dir.path().join("kubeconfig"))
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        (child, health)
    }

    fn here<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn holder(&self) -> Option<String> {
        self.here::<Lease>()
            .get_opt(LEASE)
            .await
            .unwrap()?
            .spec?
            .holder_identity
            .filter(|name| !name.is_empty())
    }
}

async fn get(address: SocketAddr, path: &str) -> String {
    let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { return String::new() };
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    drop(stream.read_to_string(&mut answer).await);
    answer
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let patience = Duration::from_secs(60);
    let waited = tokio::time::timeout(patience, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {patience:?}: {what}");
}

async fn ends_well(mut child: Child) {
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "{ended}");
}

#[tokio::test]
async fn one_process_leads_reconciles_makes_certificates_shows_metrics_and_hands_over() {
    let bench = Bench::new().await;
    let (first, health) = bench.replica("operator,webhook");
    until("it leads", || async { bench.holder().await.is_some() }).await;
    let leader = bench.holder().await;
    let configs: Api<KataConfig> = Api::all(bench.client.clone());
    let config: KataConfig = serde_json::from_value(json!({
        "apiVersion": "kataconfiguration.openshift.io/v1", "kind": "KataConfig", "metadata": { "name": "example" }, "spec": {},
    }))
    .unwrap();
    configs.create(&PostParams::default(), &config).await.unwrap();
    until("the KataConfig is looked after", || async {
        configs.get("example").await.unwrap().status.is_some_and(|status| !status.conditions.is_empty())
    })
    .await;
    for secret in ["peer-pods-webhook-svc-secret", "peerpods-operator-webhook-cert"] {
        until(secret, || async { bench.here::<Secret>().get_opt(secret).await.unwrap().is_some() }).await;
    }
    let metrics = get(health, "/metrics").await;
    for line in [
        "peerpods_operator_leading 1",
        "peerpods_orphans 0",
        "peerpods_webhook_answers_total{answer=\"refused\"} 0",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert!(get(health, "/livez?verbose").await.contains("[+]leading ok"));

    let (second, standing_by) = bench.replica("operator,webhook");
    until("the second stands by", || async {
        get(standing_by, "/livez?verbose").await.contains("another replica leads")
    })
    .await;
    ends_well(first).await;
    until("the second leads", || async {
        let holder = bench.holder().await;
        holder.is_some() && holder != leader
    })
    .await;
    ends_well(second).await;
    assert_eq!(bench.holder().await, None, "the Lease is given back");
}

#[tokio::test]
async fn an_api_server_that_is_away_ends_nothing() {
    let bench = Bench::new().await;
    bench.server.stop().await;
    let (child, health) = bench.replica("operator");
    until("it lives", || async { get(health, "/livez").await.contains(" 200 ") }).await;
    bench.server.serve_again().unwrap();
    until("it leads", || async { bench.holder().await.is_some() }).await;
    ends_well(child).await;
}

#[tokio::test]
async fn without_a_cluster_it_says_where_it_looked() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_peerpods")).arg("operator").env_clear().output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("KUBECONFIG"), "{told}");
}

#[tokio::test]
async fn what_deploy_holds_is_printed_for_kubectl() {
    let run = async |args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_peerpods")).args(args).env_clear().output().await.unwrap();
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let names = |text: &str| -> Vec<String> {
        let list: Value = serde_json::from_str(text).unwrap();
        let name = |item: &Value| {
            format!("{} {}", item["kind"].as_str().unwrap(), item["metadata"]["name"].as_str().unwrap())
        };
        list["items"].as_array().unwrap().iter().map(name).collect()
    };
    let definitions = names(&run(&["crd", "--output", "json"]).await);
    assert!(
        definitions
            .contains(&"CustomResourceDefinition kataconfigs.kataconfiguration.openshift.io".to_owned())
    );
    let plain = names(&run(&["manifests", "--output", "json"]).await);
    assert!(plain.contains(&"Deployment peerpods-operator".to_owned()), "{plain:?}");
    let openshift = names(&run(&["manifests", "--openshift", "--output", "json"]).await);
    assert!(openshift.len() > plain.len());
    let elsewhere = run(&["manifests", "--image", "registry.test/ours:1"]).await;
    let images: Vec<&str> = elsewhere.lines().filter(|line| line.contains("ours:1")).map(str::trim).collect();
    // What it runs from, and what it is told to run others from.
    assert_eq!(images, ["value: registry.test/ours:1", "image: registry.test/ours:1"]);
    assert!(!elsewhere.contains(peerpods_operator::deploy::workload::IMAGE));
    assert!(run(&["crd"]).await.starts_with("---\n"));
}
