//! Sandboxes a driver does not make itself: those of an earlier run of the service, and VMs whose record was lost.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use peerpods_podvm::admission::State;
use tracing::info;

use super::unwind::Intent;
use super::{Driver, Reply, Work, reattach, send, sweep};
use crate::failure::Failure;
use crate::record::{Record, Stage};

impl Driver {
    /// Takes over a sandbox as it was read from the journal: a stop that is on the disk is not written again, or two hundred of them
    /// would hold up the first StopVM.
    pub(crate) async fn resume_recorded(mut self, record: Record) {
        if record.stage == Stage::Stopping {
            self.stop = Intent::Recorded;
        }
        self.resume(record).await;
    }

    /// Takes over a sandbox of an earlier run of the service, or of a driver that ended early.
    pub(crate) async fn resume(mut self, record: Record) {
        let stage = record.stage_after_restart(&self.context.boot_id);
        info!(sandbox = %record.sandbox, was = ?record.stage, now = ?stage, "taking over");
        self.context.capacity.hold(&record);
        self.publisher.record(&record);
        self.record = Some(record.clone());
        self.created = sweep::created(&record, &self.context.config.clock, self.context.config.unstarted_ttl);
        match stage {
            Stage::Created => {
                self.publisher.enter(State::Created);
                self.work = Some(Work::Reattach(reattach::reopen(self.context.clone(), record).boxed()));
            }
            Stage::Running => {
                self.publisher.enter(State::Running);
                self.work = Some(Work::Reattach(self.reattach(record)));
            }
            Stage::Starting | Stage::Stopping => {
                if let Some(why) = record.why_after_restart(&self.context.boot_id) {
                    self.publisher.fail(Arc::new(Failure::Recorded(why)));
                }
                self.begin_unwinding().await;
            }
        }
        self.run().await;
    }

    fn reattach(&self, record: Record) -> BoxFuture<'static, ()> {
        reattach::reattach(self.context.clone(), self.publisher.clone(), record).boxed()
    }

    /// Removes a VM nobody owns, like that of any sandbox: the record says `stopping` before anything is done, so that a restart goes
    /// on with it. Should even the record fail, the VM is in the provider's list, and the sweep finds it again.
    pub(crate) async fn remove(mut self, record: Record, why: String) {
        self.context.capacity.hold(&record);
        self.publisher.record(&record);
        self.publisher.fail(Arc::new(Failure::Recorded(why)));
        self.record = Some(record);
        self.begin_unwinding().await;
        self.run().await;
    }

    /// Goes on with a running pod whose record was lost, as after a restart of the service. Answers when the new record is on disk.
    pub(crate) async fn adopt(self, record: Record, reply: Reply<()>) {
        if let Err(source) = self.context.parts.journal.append(&record).await {
            // It may be on the disk all the same; then a restart adopts the pod.
            self.context.vnis.release(record.vnis());
            return send(reply, Err(Arc::new(Failure::Journal { sandbox: record.sandbox.clone(), source })));
        }
        send(reply, Ok(()));
        self.resume(record).await;
    }
}
