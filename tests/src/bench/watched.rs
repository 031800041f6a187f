//! A provider whose VMs' consoles are watched: when, on this host's clock, each said that a step of its boot was done. It also keeps the
//! last specification, so that the same VM can be made without the service.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use peerpods_podvm::ClusterId;
use peerpods_provider::{Console, Facts, Instance, Provider, ProviderError, VmKey, VmSpec};

/// What the guest says, in order: PID 1's steps and the service's. `src/guest` writes them.
pub const STEPS: [&str; 9] =
    ["kernel", "mounts", "modules", "network", "service", "user data", "listening", "pod network", "agent"];

/// How exactly steps are seen.
const EVERY: Duration = Duration::from_millis(2);
/// No guest takes so long.
const PATIENCE: Duration = Duration::from_secs(180);

/// One VM's birth.
#[derive(Debug, Clone)]
pub struct Birth {
    /// When it was asked for.
    pub asked: Instant,
    /// When the provider answered.
    pub made: Instant,
    /// When the console said that a step was done.
    pub steps: BTreeMap<&'static str, Instant>,
}

#[derive(Default)]
struct Seen {
    spec: Option<VmSpec>,
    births: BTreeMap<VmKey, Birth>,
}

/// The provider.
pub struct Watched {
    inner: Arc<dyn Provider>,
    seen: Arc<Mutex<Seen>>,
}

#[expect(clippy::missing_panics_doc, reason = "the test framework fails the test")]
impl Watched {
    /// Watches the VMs `inner` makes.
    #[must_use]
    pub fn new(inner: Arc<dyn Provider>) -> Self {
        Self { inner, seen: Arc::default() }
    }

    /// What was asked for last.
    #[must_use]
    pub fn last_spec(&self) -> VmSpec {
        self.seen().spec.clone().unwrap()
    }

    /// The birth of the VM of the sandbox, once it said `step`.
    pub async fn birth(&self, sandbox: &str, step: &str) -> Birth {
        let began = Instant::now();
        loop {
            let found = self
                .seen()
                .births
                .iter()
                .find(|(key, _)| key.sandbox.as_str() == sandbox)
                .map(|(_, b)| b.clone());
            if let Some(birth) = found.filter(|birth| birth.steps.contains_key(step)) {
                return birth;
            }
            assert!(began.elapsed() < PATIENCE, "the VM of {sandbox} never said {step:?}");
            tokio::time::sleep(EVERY).await;
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes the steps as they appear, until the last did or the console is gone.
async fn watch(seen: Arc<Mutex<Seen>>, key: VmKey, console: PathBuf) {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        tokio::time::sleep(EVERY).await;
        let Ok(text) = std::fs::read(&console) else { return };
        let text = String::from_utf8_lossy(&text).into_owned();
        let now = Instant::now();
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(birth) = seen.births.get_mut(&key) else { return };
        for step in STEPS {
            if !birth.steps.contains_key(step) && text.lines().any(|line| says(line, step)) {
                birth.steps.insert(step, now);
            }
        }
        if birth.steps.len() == STEPS.len() {
            return;
        }
    }
}

/// PID 1 writes `peerpods-guest: modules 2.31s (+0.41s)`, the service `… INFO listening 2.62s: 0.0.0.0:15150`.
fn says(line: &str, step: &str) -> bool {
    let marks = [format!("peerpods-guest: {step} "), format!(" INFO {step} ")];
    let told = marks.iter().find_map(|mark| line.split_once(mark.as_str())).map(|(_, rest)| rest);
    told.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[async_trait]
impl Provider for Watched {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn verify(&self) -> Result<Facts, ProviderError> {
        self.inner.verify().await
    }

    async fn create(&self, key: &VmKey, spec: &VmSpec) -> Result<Instance, ProviderError> {
        let asked = Instant::now();
        let instance = self.inner.create(key, spec).await?;
        let birth = Birth { asked, made: Instant::now(), steps: BTreeMap::new() };
        let mut seen = self.seen();
        seen.spec = Some(spec.clone());
        seen.births.insert(key.clone(), birth);
        drop(seen);
        if let Some(Console::File(path)) = instance.console.clone() {
            tokio::spawn(watch(self.seen.clone(), key.clone(), path));
        }
        Ok(instance)
    }

    async fn get(&self, key: &VmKey) -> Result<Option<Instance>, ProviderError> {
        self.inner.get(key).await
    }

    async fn list(&self, cluster: &ClusterId) -> Result<Vec<(VmKey, Instance)>, ProviderError> {
        self.inner.list(cluster).await
    }

    async fn delete(&self, key: &VmKey) -> Result<(), ProviderError> {
        self.inner.delete(key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_by_who_says_it_and_when() {
        assert!(says("peerpods-guest: network 2.31s (+0.41s)", "network"));
        assert!(says("2026-01-01T00:00:00Z  INFO listening 2.62s: 0.0.0.0:15150", "listening"));
        assert!(says("[    2.1] peerpods-guest: kernel 2.1s (+0.00s)\r", "kernel"));
        assert!(!says("2026-01-01T00:00:00Z  INFO pod network 2.8s: 10.0.0.1/24", "network"));
        assert!(!says("peerpods-guest: network is not there", "network"));
    }
}
