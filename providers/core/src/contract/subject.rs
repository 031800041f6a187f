//! What a contract case works with: the provider under test, and names that belong to this case alone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use peerpods_podvm::ClusterId;

use crate::{Instance, Provider, VmKey, VmSpec, VmState};

/// A provider under test, and a way to look behind its back.
#[async_trait]
pub trait Subject: Send + Sync {
    /// A new provider over the same cloud, as a restarted service would build it.
    fn provider(&self) -> Arc<dyn Provider>;

    /// A spec of the smallest VM, with this name and tags.
    fn spec(&self, name: &str, tags: BTreeMap<String, String>) -> VmSpec;

    /// Makes the VM of `key` stop by itself.
    ///
    /// # Errors
    /// When it could not be stopped, as text.
    async fn kill(&self, key: &VmKey) -> Result<(), String>;

    /// The tags the VM of `key` really has.
    ///
    /// # Errors
    /// When the cloud could not be asked, as text.
    async fn tags(&self, key: &VmKey) -> Result<BTreeMap<String, String>, String>;

    /// What there is although every VM of this subject was deleted.
    async fn leftovers(&self) -> Vec<String>;

    /// How long a VM may take until it runs and has an address.
    fn patience(&self) -> Duration;
}

/// One case's view of the subject: keys of its own, removed after the case.
pub struct Bench<'a> {
    pub(super) subject: &'a dyn Subject,
    pub(super) cluster: ClusterId,
    keys: Mutex<Vec<VmKey>>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(subject: &'a dyn Subject, case: usize) -> Self {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let cluster = identifier(&format!("contract-{}-{run}-{case}", std::process::id()));
        Self { subject, cluster, keys: Mutex::default() }
    }

    pub(super) fn provider(&self) -> Arc<dyn Provider> {
        self.subject.provider()
    }

    /// A key of this case's cluster.
    pub(super) fn key(&self, sandbox: &str) -> VmKey {
        self.key_in(self.cluster.clone(), sandbox)
    }

    /// A key of any cluster; what is made under it is removed after the case.
    pub(super) fn key_in(&self, cluster: ClusterId, sandbox: &str) -> VmKey {
        let key = VmKey { cluster, sandbox: identifier(sandbox) };
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).push(key.clone());
        key
    }

    pub(super) fn spec(&self, name: &str) -> VmSpec {
        self.subject.spec(name, BTreeMap::new())
    }

    /// Waits until the VM is in `state`, with an address if it is to run.
    pub(super) async fn wait_for(&self, key: &VmKey, state: VmState) -> Result<Instance, String> {
        let provider = self.provider();
        let look = async {
            loop {
                let seen = provider.get(key).await.map_err(|e| format!("get failed: {e}"))?;
                let there =
                    seen.ok_or_else(|| format!("waiting for {state:?}, but get says there is none"))?;
                let addressed = state != VmState::Running || !there.addresses.is_empty();
                if there.state == state && addressed {
                    return Ok(there);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let patience = self.subject.patience();
        tokio::time::timeout(patience, look).await.map_err(|_| format!("not {state:?} after {patience:?}"))?
    }

    /// That neither get nor list knows the key.
    pub(super) async fn is_gone(&self, key: &VmKey) -> Result<(), String> {
        let provider = self.provider();
        if let Some(there) = ok("get", provider.get(key).await)? {
            return Err(format!("get still answers {there:?}"));
        }
        let listed = ok("list", provider.list(&key.cluster).await)?;
        match listed.into_iter().find(|(k, _)| k == key) {
            Some((_, there)) => Err(format!("list still has {there:?}")),
            None => Ok(()),
        }
    }

    pub(super) async fn clean_up(&self) -> Result<(), String> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for key in &keys {
            ok("delete after the case", self.provider().delete(key).await)?;
            self.is_gone(key).await.map_err(|e| format!("after the case: {e}"))?;
        }
        let left = self.subject.leftovers().await;
        if left.is_empty() { Ok(()) } else { Err(format!("left behind: {}", left.join(", "))) }
    }
}

/// The answer, or what was called and why it failed.
pub(super) fn ok<T>(what: &str, answer: Result<T, crate::ProviderError>) -> Result<T, String> {
    answer.map_err(|e| format!("{what}: {e}"))
}

/// `Err` with the text unless it holds.
pub(super) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// An id made by the suite itself.
#[expect(clippy::expect_used, reason = "test code that ships in the library; the suite's own ids are valid")]
fn identifier<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().expect("an id of the contract suite")
}
