//! What no request tells a driver: a sandbox nobody ever started, a pod network that is gone, a VM that stopped by itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt as _;
use peerpods_podvm::admission::State;
use peerpods_provider::{Console, Instance, VmState};
use tokio::time::Instant;
use tracing::warn;

use super::console::tail;
use super::{Driver, unwind};
use crate::context::Context;
use crate::failure::Failure;
use crate::record::Record;

/// A VM the provider does not know is believed to be gone when that was said so many times in a row: providers forget for a moment.
const MISSING_PASSES: u32 = 3;

/// How the VM of a running pod was found.
pub(super) enum Sighting {
    Alive,
    Stopped(Instance),
    Missing,
    /// The provider did not answer, which says nothing.
    Unknown,
}

/// Asks the provider for the VM once.
pub(super) async fn sight(context: Arc<Context>, record: Record) -> Sighting {
    match context.parts.provider.get(&record.key()).await {
        Ok(Some(instance)) if instance.state == VmState::Stopped => Sighting::Stopped(instance),
        Ok(Some(_)) => Sighting::Alive,
        Ok(None) => Sighting::Missing,
        Err(e) => {
            warn!(sandbox = %record.sandbox, error = %e, "cannot ask whether the VM lives");
            Sighting::Unknown
        }
    }
}

impl Driver {
    /// Looks around once; called at every [`sweep_interval`](crate::Config::sweep_interval).
    pub(super) async fn look_around(&mut self) {
        let (Some(record), state) = (&self.record, self.publisher.state()) else { return };
        if !matches!(state, State::Created | State::Starting | State::Running) {
            return;
        }
        let config = &self.context.config;
        let waited = self.created.elapsed();
        if state == State::Created && waited >= config.unstarted_ttl {
            let reason = format!("created {waited:.0?} ago and never started");
            return self.stop_because(Failure::Denied { sandbox: self.sandbox(), reason }).await;
        }
        if !unwind::netns_exists(&record.netns).await {
            let since = *self.netns_missing_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= config.netns_gone_ttl {
                let reason = format!("its network namespace {} is gone", record.netns.display());
                self.stop_because(Failure::Denied { sandbox: self.sandbox(), reason }).await;
            }
            return;
        }
        self.netns_missing_since = None;
        if state == State::Running && self.sighting.is_none() {
            self.sighting = Some(sight(self.context.clone(), record.clone()).boxed());
        }
    }

    /// Takes note of how the VM of a running pod was found.
    pub(super) async fn sighted(&mut self, sighting: Sighting) {
        self.sighting = None;
        if self.publisher.state() != State::Running {
            return;
        }
        match sighting {
            Sighting::Alive => self.vm_missing = 0,
            Sighting::Unknown => {}
            Sighting::Missing if self.vm_missing + 1 < MISSING_PASSES => self.vm_missing += 1,
            Sighting::Missing => self.vm_died(None).await,
            Sighting::Stopped(instance) => self.vm_died(instance.console).await,
        }
    }

    async fn vm_died(&mut self, console: Option<Console>) {
        let instance = self.record.as_ref().and_then(|record| record.instance.as_ref());
        let vm = instance.map(|instance| instance.id.clone()).unwrap_or_default();
        let console = tail(console.as_ref()).await;
        self.stop_because(Failure::VmDied { sandbox: self.sandbox(), vm, during: "", console }).await;
    }
}

/// When a sandbox of an earlier run was created, on this run's clock. The wall clock may have been set since, so its word is taken for
/// no more than `at_most`.
pub(super) fn created(record: &Record, at_most: Duration) -> Instant {
    let created = UNIX_EPOCH + Duration::from_millis(record.created_unix_ms);
    let age = SystemTime::now().duration_since(created).unwrap_or_default().min(at_most);
    Instant::now().checked_sub(age).unwrap_or_else(Instant::now)
}
