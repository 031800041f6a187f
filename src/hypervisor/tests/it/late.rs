//! A provider that shows what it made only some time later, and one that is not usable while a pod's record is unreadable.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use peerpods_hypervisor::Parts;
use peerpods_podvm::ClusterId;
use peerpods_provider::fake::{Calls, FakeProvider, Fault, Operation};
use peerpods_provider::{ErrorKind, Facts, Instance, Provider, ProviderError, VmKey, VmSpec, VmState};
use tokio_util::sync::CancellationToken;

use crate::place::{Place, ask, id};

/// Longer than the pauses between three questions.
const LAG: Duration = Duration::from_secs(3);

struct Late {
    inner: FakeProvider,
    made: Mutex<Option<Instant>>,
}

#[async_trait]
impl Provider for Late {
    fn name(&self) -> &'static str {
        "late"
    }

    fn visible_within(&self) -> Duration {
        LAG
    }

    async fn verify(&self) -> Result<Facts, ProviderError> {
        self.inner.verify().await
    }

    async fn create(&self, key: &VmKey, spec: &VmSpec) -> Result<Instance, ProviderError> {
        let made = self.inner.create(key, spec).await?;
        *self.made.lock().unwrap() = Some(Instant::now());
        Ok(Instance { addresses: Vec::new(), state: VmState::Pending, ..made })
    }

    async fn get(&self, key: &VmKey) -> Result<Option<Instance>, ProviderError> {
        if self.made.lock().unwrap().is_some_and(|at| at.elapsed() < LAG) {
            return Ok(None);
        }
        self.inner.get(key).await
    }

    async fn list(&self, cluster: &ClusterId) -> Result<Vec<(VmKey, Instance)>, ProviderError> {
        self.inner.list(cluster).await
    }

    async fn delete(&self, key: &VmKey) -> Result<(), ProviderError> {
        self.inner.delete(key).await
    }
}

#[tokio::test]
async fn a_vm_that_is_not_shown_yet_is_not_taken_for_dead() {
    let place = Place::new();
    let late = Late { inner: place.cloud.provider(), made: Mutex::default() };
    let parts = Parts { provider: Arc::new(late), ..place.parts() };
    let service =
        peerpods_hypervisor::open(place.config.clone(), parts, CancellationToken::new()).await.unwrap();
    service.create(ask("a")).await.unwrap();
    let started = service.start(&id("a")).await;
    assert!(started.is_ok(), "{:?}", started.map_err(|failure| failure.chain()));
}

/// How long a creation stands in the provider's own line, and for how long the VM is not shown then: the line is the longer one.
const IN_LINE: Duration = Duration::from_millis(900);
const UNSEEN: Duration = Duration::from_millis(600);

/// A provider whose creations wait for their turn, make a VM nobody sees yet, and never answer.
struct Queue {
    inner: FakeProvider,
    made: Mutex<Option<Instant>>,
}

impl Queue {
    fn is_unseen(&self) -> bool {
        self.made.lock().unwrap().is_none_or(|at| at.elapsed() < UNSEEN)
    }
}

#[async_trait]
impl Provider for Queue {
    fn name(&self) -> &'static str {
        "queue"
    }

    fn visible_within(&self) -> Duration {
        UNSEEN
    }

    async fn verify(&self) -> Result<Facts, ProviderError> {
        self.inner.verify().await
    }

    async fn create(&self, key: &VmKey, spec: &VmSpec) -> Result<Instance, ProviderError> {
        tokio::time::sleep(IN_LINE).await;
        self.inner.create(key, spec).await?;
        *self.made.lock().unwrap() = Some(Instant::now());
        std::future::pending().await
    }

    async fn get(&self, key: &VmKey) -> Result<Option<Instance>, ProviderError> {
        if self.is_unseen() { Ok(None) } else { self.inner.get(key).await }
    }

    async fn list(&self, cluster: &ClusterId) -> Result<Vec<(VmKey, Instance)>, ProviderError> {
        if self.is_unseen() { Ok(Vec::new()) } else { self.inner.list(cluster).await }
    }

    async fn delete(&self, key: &VmKey) -> Result<(), ProviderError> {
        if self.is_unseen() { Ok(()) } else { self.inner.delete(key).await }
    }
}

#[tokio::test]
async fn a_creation_that_waited_long_and_is_called_off_leaves_no_vm() {
    let place = Place::new();
    let queue = Arc::new(Queue { inner: place.cloud.provider(), made: Mutex::default() });
    let parts = Parts { provider: queue.clone(), ..place.parts() };
    let service =
        peerpods_hypervisor::open(place.config.clone(), parts, CancellationToken::new()).await.unwrap();
    service.create(ask("a")).await.unwrap();
    let starting = service.clone();
    let started = tokio::spawn(async move { starting.start(&id("a")).await });
    while queue.made.lock().unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    service.stop(&id("a")).await.unwrap();
    assert!(started.await.unwrap().is_err());
    while service.get(&id("a")).is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(place.cloud.machines().len(), 0, "the record went before the VM was seen");
}

#[tokio::test]
async fn an_unusable_provider_does_not_end_a_service_with_an_unreadable_record() {
    let place = Place::new();
    let journal = place.config.state_dir.join("journal");
    std::fs::create_dir_all(&journal).unwrap();
    std::fs::write(journal.join("a.json"), b"{\"version\":1,\"sandbox\":\"a\",\"vni\":555").unwrap();
    place.cloud.script(Operation::Verify, Calls::All, Fault::Fail(ErrorKind::Denied));
    let end = CancellationToken::new();
    let _service = peerpods_hypervisor::open(place.config.clone(), place.parts(), end.clone()).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(2), end.cancelled()).await;
    assert!(ended.is_err(), "whoever adopts the pod needs a service");
}
