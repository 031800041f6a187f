//! The fake cloud behind a socket: its client is held to the same contract, and what the cloud says arrives whole.

#![expect(clippy::unwrap_used, reason = "what tests share panics as tests do")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use peerpods_provider::contract::{self, Subject};
use peerpods_provider::fake::{Calls, CloudClient, CloudServer, FakeCloud, Fault, Operation};
use peerpods_provider::{ErrorKind, Provider, UserData, VmKey, VmSize, VmSpec};

struct Behind {
    cloud: Arc<FakeCloud>,
    _server: CloudServer,
    dir: tempfile::TempDir,
}

impl Behind {
    fn new() -> Self {
        let (cloud, dir) = (FakeCloud::bare(), tempfile::tempdir().unwrap());
        let server = CloudServer::start(&cloud, &dir.path().join("cloud")).unwrap();
        Self { cloud, _server: server, dir }
    }

    fn client(&self) -> CloudClient {
        CloudClient::new(&self.dir.path().join("cloud")).unwrap()
    }
}

#[async_trait]
impl Subject for Behind {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(self.client())
    }

    fn spec(&self, name: &str, tags: BTreeMap<String, String>) -> VmSpec {
        VmSpec { tags, ..spec(name) }
    }

    async fn kill(&self, key: &VmKey) -> Result<(), String> {
        self.cloud.power_off(key).await.map_err(|e| e.to_string())
    }

    async fn tags(&self, key: &VmKey) -> Result<BTreeMap<String, String>, String> {
        let machines = self.cloud.machines();
        machines.into_iter().find(|m| m.key == *key).map(|m| m.spec.tags).ok_or_else(|| "none".to_owned())
    }

    async fn leftovers(&self) -> Vec<String> {
        self.cloud.leftovers()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}

fn spec(name: &str) -> VmSpec {
    VmSpec {
        name: name.to_owned(),
        image: Some("image".to_owned()),
        machine_type: Some("large".to_owned()),
        size: VmSize { vcpus: 2, memory_mib: 3, gpus: 1 },
        user_data: UserData::new(vec![0, 255, b'#']),
        tags: BTreeMap::from([("pod".to_owned(), "web".to_owned())]),
    }
}

fn key(sandbox: &str) -> VmKey {
    VmKey { cluster: "cluster".parse().unwrap(), sandbox: sandbox.parse().unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_of_a_cloud_behind_a_socket_keeps_the_contract() {
    assert_eq!(contract::check(&Behind::new()).await, Ok(contract::CASES.len()));
}

#[tokio::test]
async fn what_is_asked_for_and_what_goes_wrong_arrive_whole() {
    let behind = Behind::new();
    let client = behind.client();
    let made = client.create(&key("a"), &spec("podvm-a")).await.unwrap();
    let seen = behind.cloud.machines().remove(0);
    assert_eq!(made, seen.instance);
    assert_eq!(
        (seen.spec.image.as_deref(), seen.spec.machine_type.as_deref()),
        (Some("image"), Some("large"))
    );
    assert_eq!((seen.spec.size, seen.spec.user_data.expose()), (spec("x").size, &[0, 255, b'#'][..]));
    behind.cloud.script(Operation::Get, Calls::All, Fault::Fail(ErrorKind::Quota));
    let error = client.get(&key("a")).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::Quota, Some("Scripted")));
}

#[tokio::test]
async fn a_dropped_call_goes_on_in_the_cloud_also_when_its_client_is_gone() {
    let behind = Behind::new();
    behind.cloud.script(Operation::Create, Calls::All, Fault::Delay(Duration::from_millis(300)));
    let client = behind.client();
    let dropped =
        tokio::time::timeout(Duration::from_millis(50), client.create(&key("a"), &spec("podvm-a"))).await;
    assert!(dropped.is_err());
    drop(client);
    while behind.cloud.born() == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(behind.client().get(&key("a")).await.unwrap().unwrap().name, "podvm-a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_sent_earlier_is_done_earlier_whoever_sent_it() {
    let behind = Behind::new();
    for round in 0..300 {
        let (dead, successor) = (behind.client(), behind.client());
        // Once, so that its socket is known to take more; then a single poll sends.
        dead.verify().await.unwrap();
        drop(dead.create(&key("a"), &spec("podvm-a")).now_or_never());
        drop(dead);
        successor.delete(&key("a")).await.unwrap();
        assert_eq!(successor.get(&key("a")).await.unwrap(), None, "round {round}");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(successor.get(&key("a")).await.unwrap(), None, "round {round}, a moment later");
    }
    assert!(behind.cloud.born() > 100, "most were sent: {}", behind.cloud.born());
}

#[tokio::test]
async fn a_cloud_that_is_not_there_is_a_failure_that_may_pass() {
    let dir = tempfile::tempdir().unwrap();
    let error = CloudClient::new(&dir.path().join("cloud")).unwrap().verify().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient);
}
