//! VMs that no sandbox owns: found, judged, and removed.
//!
//! ```text
//!  provider.list ──▶ look: who owns each? ──▶ decide (pure) ──▶ a driver that removes it
//!                        │                        ▲
//!                        └ sandboxes, then links  └ memory of the pass before
//! ```
//!
//! Every VM carries the node that made it as a tag. A VM of this node without a record is an orphan *candidate*: a record may have
//! been lost while the pod lives, and a list is not one instant. It is deleted when two consecutive passes and a grace period have
//! seen it, and never
//! - when a sandbox of this node owns it (looked up *after* the list came back: records are written before their VMs are made);
//! - when its link process holds an open connection of a shim, or knows that the shim lives, or does not answer;
//! - when another node made it, or it does not say which node did: those are listed for a person and left alone;
//! - when the provider could not be asked for all VMs: then nothing is decided at all.
//!
//! Removing is given to a driver like any sandbox's end: a record in stage `stopping` is written first, CreateVM of the same id is
//! held off, failures are tried again for ever and can be seen in `sandbox list`. What this memory holds is lost in a crash, and that
//! loses nothing: the VM is still listed, and the two passes begin again.

mod decide;
mod error;
mod look;
mod request;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use peerpods_podvm::SandboxId;
use peerpods_podvm::causes::chain;
use tokio::time::Instant;
use tracing::{error, warn};

pub use decide::{Memory, Observed, Owner, Pass, Rules, Suspicion, Verdict, decide, verdict};
pub use error::OrphanError;
pub use look::Found;
pub use request::{Earnest, Judged, Purpose};

use crate::backoff;
use crate::config::Collection;
use crate::service::Service;

/// What the sweep remembers from pass to pass, and counts.
#[derive(Debug, Default)]
pub(crate) struct Sweep(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    memory: Memory,
    counters: Counters,
    /// Orphans a dry run has told of.
    told: BTreeSet<SandboxId>,
}

/// What the sweep did since the service started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Passes over all VMs.
    pub passes: u64,
    /// Passes that ended because the provider could not be asked.
    pub failed_passes: u64,
    /// Orphans whose removal was begun, by the sweep or on request.
    pub collected: u64,
}

impl Sweep {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counters(&self) -> Counters {
        self.lock().counters
    }
}

/// Sweeps until the service ends.
pub(crate) async fn run(service: Service) {
    let config = &service.context.config;
    if config.gc == Collection::Off {
        return warn!("VMs that no sandbox owns are not looked for (PEERPODS_GC=off)");
    }
    let ending = service.ending.clone();
    let passes = async {
        loop {
            tokio::time::sleep(backoff::jittered(config.gc_interval)).await;
            service.sweep_once().await;
        }
    };
    tokio::select! {
        biased;
        () = passes => {}
        () = ending.shutdown.cancelled() => {}
        () = ending.leave.cancelled() => {}
    }
}

impl Service {
    /// One pass: look, decide, act.
    pub(crate) async fn sweep_once(&self) {
        let found = match self.look_for_vms().await {
            Ok(found) => found,
            Err(error) => {
                self.orphans.lock().counters.failed_passes += 1;
                return warn!(
                    error = chain(&error),
                    "cannot look for VMs without an owner; nothing is deleted"
                );
            }
        };
        let observed: Vec<Observed> = found.iter().map(|found| found.observed.clone()).collect();
        let due = self.orphans.note(&observed, &Rules::of(&self.context.config));
        for sandbox in due {
            let vms: Vec<&Found> = found.iter().filter(|found| found.observed.sandbox == sandbox).collect();
            self.act(&sandbox, &vms);
        }
    }

    fn act(&self, sandbox: &SandboxId, vms: &[&Found]) {
        let ids = ids(vms);
        if self.context.config.gc == Collection::DryRun {
            if self.orphans.lock().told.insert(sandbox.clone()) {
                warn!(%sandbox, vms = ids, "dry run: this VM has no owner and would be deleted now");
            }
            return;
        }
        error!(%sandbox, vms = ids, "this VM has no owner; it is deleted");
        let why = format!("nobody owned its VM {ids}: removed as an orphan");
        // One that found an owner since is left alone.
        let _begun = self.remove_unowned(sandbox, vms, why);
    }
}

impl Sweep {
    fn note(&self, observed: &[Observed], rules: &Rules) -> Vec<SandboxId> {
        let mut state = self.lock();
        let pass = decide(observed, &state.memory, Instant::now(), rules);
        state.counters.passes += 1;
        state.memory = pass.memory;
        let State { told, memory, .. } = &mut *state;
        told.retain(|sandbox| memory.suspects(sandbox));
        pass.due
    }

    fn suspicion(&self, observed: &Observed) -> Option<Suspicion> {
        self.lock().memory.of(observed)
    }
}

fn ids(vms: &[&Found]) -> String {
    vms.iter().map(|found| found.observed.vm.as_str()).collect::<Vec<_>>().join(", ")
}
