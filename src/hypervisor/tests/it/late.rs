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
