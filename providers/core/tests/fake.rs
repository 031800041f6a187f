//! The fake cloud: it keeps the contract, and it breaks it exactly as the script says.

#![expect(clippy::unwrap_used, reason = "what tests share panics as tests do")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use peerpods_provider::contract::{self, Subject};
use peerpods_provider::fake::{Calls, FakeCloud, FakeProvider, Fault, Operation};
use peerpods_provider::{
    ErrorKind, Instance, Provider, ProviderError, UserData, VmKey, VmSize, VmSpec, VmState,
};

struct FakeSubject(Arc<FakeCloud>);

#[async_trait]
impl Subject for FakeSubject {
    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(self.0.provider())
    }

    fn spec(&self, name: &str, tags: BTreeMap<String, String>) -> VmSpec {
        VmSpec { tags, ..spec(name) }
    }

    async fn kill(&self, key: &VmKey) -> Result<(), String> {
        self.0.power_off(key).await.map_err(|e| e.to_string())
    }

    async fn tags(&self, key: &VmKey) -> Result<BTreeMap<String, String>, String> {
        let machines = self.0.machines();
        machines.into_iter().find(|m| m.key == *key).map(|m| m.spec.tags).ok_or_else(|| "none".to_owned())
    }

    async fn leftovers(&self) -> Vec<String> {
        self.0.leftovers()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}

fn spec(name: &str) -> VmSpec {
    VmSpec {
        name: name.to_owned(),
        image: None,
        machine_type: None,
        size: VmSize::default(),
        user_data: UserData::new("#cloud-config\n"),
        tags: BTreeMap::new(),
    }
}

fn key(sandbox: &str) -> VmKey {
    VmKey { cluster: "cluster".parse().unwrap(), sandbox: sandbox.parse().unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fake_keeps_the_contract() {
    let subject = FakeSubject(FakeCloud::bare());
    assert_eq!(contract::check(&subject).await, Ok(contract::CASES.len()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_notices_a_cloud_that_makes_duplicates_and_one_that_loses_nothing_on_delete() {
    let doubling = FakeSubject(FakeCloud::bare());
    doubling.0.script(Operation::Create, Calls::All, Fault::Duplicate);
    let broken = contract::check(&doubling).await.unwrap_err();
    assert!(
        broken.iter().any(|b| b.case == "birth::concurrent_creates_of_one_key_make_one_vm"),
        "{broken:?}"
    );

    let immortal = FakeSubject(FakeCloud::bare());
    immortal.0.script(Operation::Delete, Calls::All, Fault::Fail(ErrorKind::Denied));
    let broken = contract::check(&immortal).await.unwrap_err();
    assert!(broken.iter().any(|b| b.case == "death::delete_of_nothing_is_ok"), "{broken:?}");
}

#[tokio::test]
async fn a_failed_create_makes_nothing_and_a_lost_answer_makes_a_vm() {
    let cloud = FakeCloud::bare();
    cloud.script(Operation::Create, Calls::Nth(1), Fault::Fail(ErrorKind::Capacity));
    cloud.script(Operation::Create, Calls::Nth(2), Fault::LoseAnswer(ErrorKind::Transient));
    let provider = cloud.provider();
    let failed = provider.create(&key("a"), &spec("podvm-a")).await.unwrap_err();
    assert_eq!((failed.kind, cloud.machines().len()), (ErrorKind::Capacity, 0));
    let lost = provider.create(&key("a"), &spec("podvm-a")).await.unwrap_err();
    assert_eq!((lost.kind, cloud.machines().len()), (ErrorKind::Transient, 1));
    let third = provider.create(&key("a"), &spec("podvm-a")).await.unwrap();
    assert_eq!(third.id, cloud.machines()[0].instance.id);
    assert_eq!((cloud.calls(Operation::Create), cloud.born()), (3, 1));
    assert_eq!(cloud.leftovers().len(), 1);
    provider.delete(&key("a")).await.unwrap();
    assert_eq!(cloud.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_vm_stays_pending_then_runs_then_dies_when_the_script_says() {
    let cloud = FakeCloud::bare();
    cloud.script(Operation::Create, Calls::All, Fault::StayPending(Duration::from_secs(1)));
    cloud.script(Operation::Create, Calls::All, Fault::DieAfter(Duration::from_secs(3)));
    let provider = cloud.provider();
    let made = provider.create(&key("a"), &spec("podvm-a")).await.unwrap();
    assert_eq!((made.state, made.addresses.len()), (VmState::Pending, 0));
    assert_eq!(next_state(&provider, VmState::Pending).await.addresses.len(), 1);
    assert_eq!(next_state(&provider, VmState::Running).await.state, VmState::Stopped);
}

/// What the VM is once it is no longer `state`.
async fn next_state(provider: &FakeProvider, state: VmState) -> Instance {
    loop {
        let seen = provider.get(&key("a")).await.unwrap().unwrap();
        if seen.state != state {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_delay_holds_the_call_back_and_a_vm_without_address_runs_without_one() {
    let cloud = FakeCloud::bare();
    cloud.script(Operation::Create, Calls::First(1), Fault::Delay(Duration::from_millis(200)));
    cloud.script(Operation::Create, Calls::First(1), Fault::NoAddress);
    let provider = cloud.provider();
    let started = std::time::Instant::now();
    let made = provider.create(&key("a"), &spec("podvm-a")).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!((made.state, made.addresses.len()), (VmState::Running, 0));
}

#[tokio::test]
async fn a_duplicate_is_listed_twice_and_deleted_with_its_twin() {
    let cloud = FakeCloud::bare();
    cloud.script(Operation::Create, Calls::Nth(1), Fault::Duplicate);
    let provider = cloud.provider();
    provider.create(&key("a"), &spec("podvm-a")).await.unwrap();
    assert_eq!(provider.list(&key("a").cluster).await.unwrap().len(), 2);
    provider.delete(&key("a")).await.unwrap();
    assert_eq!(cloud.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_scripted_error_says_so_and_healing_ends_it() {
    let cloud = FakeCloud::bare();
    cloud.script(Operation::List, Calls::All, Fault::Fail(ErrorKind::Throttled));
    let provider = cloud.provider();
    let error: ProviderError = provider.list(&key("a").cluster).await.unwrap_err();
    assert_eq!(error.code.as_deref(), Some("Scripted"));
    cloud.heal();
    assert!(provider.list(&key("a").cluster).await.unwrap().is_empty());
}
