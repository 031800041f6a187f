//! The node's disk: records that outlive the daemon. A write is in order, whole or not at all, and goes on when its asker is gone.

use std::collections::BTreeMap;
use std::io;

use async_trait::async_trait;
use peerpods_hypervisor::journal::{Journal, JournalError, Loaded};
use peerpods_hypervisor::record::Record;
use peerpods_podvm::SandboxId;
use tokio::sync::oneshot;

use super::invariants;
use super::plan::Sabotage;
use super::world::{Incarnation, Seam, World};

/// The records.
#[derive(Default)]
pub struct Disk {
    /// By sandbox.
    pub records: BTreeMap<String, Record>,
}

/// How a write goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Good,
    /// It fails and the old record stays.
    FailsBefore,
    /// It fails when the new record is there already.
    FailsAfter,
}

enum Change {
    Keep(Box<Record>),
    Forget,
}

impl Change {
    fn apply(self, world: &World, sandbox: &str) {
        if world.plan.sabotage == Some(Sabotage::JournalForgets) {
            return;
        }
        if matches!(self, Change::Forget) {
            invariants::when_forgotten(world, sandbox);
        }
        let mut state = world.state();
        match self {
            Change::Keep(record) => state.disk.records.insert(sandbox.to_owned(), *record),
            Change::Forget => state.disk.records.remove(sandbox),
        };
        drop(state);
        invariants::after_a_write(world);
    }
}

impl Incarnation {
    fn write_luck(&self, sandbox: &str) -> Write {
        let mut luck = self.world.luck(sandbox, "write");
        if !luck.chance(self.world.plan.write_faults) {
            return Write::Good;
        }
        if luck.chance(500) { Write::FailsBefore } else { Write::FailsAfter }
    }

    /// Like the writer's thread: what was asked for is done, whoever still waits.
    async fn change(&self, sandbox: String, change: Change) -> Result<(), JournalError> {
        let (answer, answered) = oneshot::channel();
        let (me, slot) = (self.clone(), self.world.slot(Some(&sandbox), Seam::Journal));
        let subject = match &change {
            Change::Keep(record) => format!("{sandbox} {:?}", record.stage),
            Change::Forget => format!("{sandbox} removed"),
        };
        let luck = self.write_luck(&sandbox);
        tokio::spawn(async move {
            me.point(slot, "journal write asked", &subject).await;
            if luck != Write::FailsBefore {
                change.apply(&me.world, &sandbox);
            }
            me.point(slot, "journal write done", &subject).await;
            let outcome = if luck == Write::Good { Ok(()) } else { Err(failure(&sandbox)) };
            drop(answer.send(outcome));
        });
        match answered.await {
            Ok(outcome) if self.world.plan.sabotage != Some(Sabotage::JournalHangs) => outcome,
            _ => std::future::pending().await,
        }
    }
}

fn failure(sandbox: &str) -> JournalError {
    JournalError::File { step: "sync", path: sandbox.into(), source: io::Error::other("the plan says so") }
}

#[async_trait]
impl Journal for Incarnation {
    async fn load(&self) -> Result<Loaded, JournalError> {
        let slot = self.world.slot(None, Seam::Journal);
        self.point(slot, "journal load", "").await;
        let mut records: Vec<Record> = self.world.state().disk.records.values().cloned().collect();
        if self.world.plan.sabotage == Some(Sabotage::JournalLosesOnLoad) {
            records.clear();
        }
        Ok(Loaded { records, ..Loaded::default() })
    }

    async fn append(&self, record: &Record) -> Result<(), JournalError> {
        self.change(record.sandbox.as_str().to_owned(), Change::Keep(Box::new(record.clone()))).await
    }

    async fn remove(&self, sandbox: &SandboxId) -> Result<(), JournalError> {
        self.change(sandbox.as_str().to_owned(), Change::Forget).await
    }
}
