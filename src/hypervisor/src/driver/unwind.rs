//! Removing a sandbox: link, tunnel and VM, then files and record. Each step is idempotent and is
//! repeated until it is done; the record goes last, so a crash anywhere resumes here.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use peerpods_podvm::causes::chain;
use peerpods_provider::ErrorKind;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::interfaces::tunnel_specs;
use super::link_spec;
use super::patience::{Mending, Patience};
use crate::backoff;
use crate::context::Context;
use crate::record::Record;
use crate::state::Publisher;

/// StopVM is answered after this at the latest; the link's end is retried in the background.
const CLOSE_BUDGET: Duration = Duration::from_millis(500);
/// How long one try of a step on this node may take. Reaching an agent has a budget of its own.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// How long one try of a deletion may take: providers answer when the VM is gone.
const DELETED_WITHIN: Duration = Duration::from_secs(300);
/// Pauses between deletions while a VM may not be seen yet.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Closes the link within a fraction of the shim's second; [`unwind`] closes it again if that was not enough.
pub(super) async fn close_link(context: &Context, record: &Record) {
    let closed = tokio::time::timeout(CLOSE_BUDGET, context.parts.link.close(&link_spec(record))).await;
    match closed {
        Ok(Ok(())) => {}
        Ok(Err(e)) => warn!(sandbox = %record.sandbox, error = %e, "cannot close the link; will try again"),
        Err(_) => warn!(sandbox = %record.sandbox, "closing the link takes long; going on in the background"),
    }
}

/// Whether the journal took the intent to remove the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intent {
    Recorded,
    Unrecorded,
}

/// Writes the intent down. A Stop is never denied: when the disk does not take it, [`unwind`] tries again beside its work.
pub(super) async fn record_intent(context: &Context, record: &Record) -> Intent {
    match context.parts.journal.append(record).await {
        Ok(()) => Intent::Recorded,
        Err(e) => {
            error!(sandbox = %record.sandbox, error = %e, "cannot record the stop; going on with it");
            Intent::Unrecorded
        }
    }
}

/// Removes everything a sandbox may have left. Ends only when the provider confirmed and the record is gone. The VM, which costs
/// money, does not wait for what is on this node.
pub(super) async fn unwind(context: Arc<Context>, publisher: Arc<Publisher>, record: Record, intent: Intent) {
    let parts = &context.parts;
    let steps = Steps { record: &record, publisher: &publisher };
    let link = link_spec(&record);
    let on_this_node = async {
        steps.until_done("close the link", || parts.link.close(&link)).await;
        for tunnel in tunnel_specs(&record) {
            steps.until_done("tear the tunnel down", || parts.tunnel.teardown(&record.netns, &tunnel)).await;
        }
    };
    let everything = async { tokio::join!(on_this_node, delete_vm(&context, &steps)) };
    // A disk that does not take the intent must not keep the VM alive. Until it takes it, a restart may know of a pod that is to go.
    let record_it = async {
        steps.until_done("record the stop", || parts.journal.append(&record)).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        _ = everything => {}
        () = record_it, if intent == Intent::Unrecorded => {}
    }
    publisher.recovered("record the stop");
    remove_pod_dir(&record).await;
    steps.until_done("remove the record", || parts.journal.remove(&record.sandbox)).await;
    context.vnis.release(record.vnis());
    context.capacity.release(&record.sandbox);
    info!(sandbox = %record.sandbox, vm = %record.vm_name, "gone");
}

/// Deletes the VM; returns when the provider confirmed that there is none.
async fn delete_vm(context: &Context, steps: &Steps<'_>) {
    let key = steps.record.key();
    let provider = &context.parts.provider;
    let delete = || async {
        match context.turns.provider(provider.delete(&key)).await {
            // Whatever was not found: when the provider knows no such VM, that is what was asked for.
            Err(error) if error.kind == ErrorKind::NotFound => match provider.get(&key).await {
                Ok(None) => Ok(()),
                _ => Err(error),
            },
            answer => answer,
        }
    };
    let missed_until = Instant::now() + may_still_turn_up(context, steps.record);
    loop {
        steps.until_done_with("delete the VM", DELETED_WITHIN, Patience::of, delete).await;
        let left = missed_until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        tokio::time::sleep(left.min(LOOK_AGAIN)).await;
    }
    context.parts.ledger.release(&key).await;
}

/// For how long the provider's "there is none" says nothing yet of the VM it answered with.
pub(super) fn may_be_missed(context: &Context, record: &Record) -> Duration {
    may_be_missed_for(record, context.parts.provider.visible_within(), context.config.clock.unix_ms())
}

/// By the wall clock; should that have been set, the sweep finds what was missed.
fn may_be_missed_for(record: &Record, visible_within: Duration, now_unix_ms: u64) -> Duration {
    record.creations_unix_ms.last().map_or(Duration::ZERO, |last| {
        visible_within.saturating_sub(Duration::from_millis(now_unix_ms.saturating_sub(*last)))
    })
}

/// For how long from now on a deletion may still miss a VM. A creation that never answered (it was called off, its answer was lost, or
/// the service died) may have been asked for until this moment: how long it stood in the provider's own line before, nobody knows.
fn may_still_turn_up(context: &Context, record: &Record) -> Duration {
    may_still_turn_up_for(record, context.parts.provider.visible_within(), context.config.clock.unix_ms())
}

fn may_still_turn_up_for(record: &Record, visible_within: Duration, now_unix_ms: u64) -> Duration {
    match record.instance {
        None if !record.creations_unix_ms.is_empty() => visible_within,
        _ => may_be_missed_for(record, visible_within, now_unix_ms),
    }
}

/// What repeats idempotent steps until they succeed, and lets everybody see how that goes.
pub(super) struct Steps<'a> {
    pub(super) record: &'a Record,
    pub(super) publisher: &'a Publisher,
}

impl Steps<'_> {
    /// Repeats a step on this node until it succeeds, with growing pauses.
    pub(super) async fn until_done<E, F>(&self, what: &'static str, step: impl FnMut() -> F)
    where
        E: std::error::Error + 'static,
        F: Future<Output = Result<(), E>>,
    {
        self.until_done_with(what, ANSWER_WITHIN, |_| Patience::NODE, step).await;
    }

    /// The same with the time one try may take, and what its failure says about the next.
    pub(super) async fn until_done_with<E, F>(
        &self,
        what: &'static str,
        answer_within: Duration,
        patience: impl Fn(&E) -> Patience,
        mut step: impl FnMut() -> F,
    ) where
        E: std::error::Error + 'static,
        F: Future<Output = Result<(), E>>,
    {
        let mut tries = 0_u32;
        loop {
            // A call that hangs (a half-open connection, say) is a failed one: its turn comes again.
            let (text, patience) = match tokio::time::timeout(answer_within, step()).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => (chain(&error), patience(&error)),
                Err(_) => (format!("no answer within {answer_within:?}"), Patience::NODE),
            };
            tries = tries.saturating_add(1);
            let pause = patience.pause(tries, backoff::roll());
            self.tell(what, tries, &text, patience.mending, pause);
            self.publisher.failing(what, tries, text);
            tokio::time::sleep(pause).await;
        }
        self.publisher.recovered(what);
    }

    fn tell(&self, what: &'static str, tries: u32, error: &str, mending: Mending, pause: Duration) {
        let record = self.record;
        match mending {
            Mending::ByItself => {
                warn!(sandbox = %record.sandbox, error, tries, "cannot {what}; trying again in {pause:.1?}");
            }
            Mending::ByAPerson => {
                let id = record.instance.as_ref().map_or("unknown", |instance| instance.id.as_str());
                error!(
                    sandbox = %record.sandbox, vm = %record.vm_name, vm_id = id, error, tries,
                    "cannot {what}, and this does not mend itself: the VM goes on costing money. Give this node the rights or the \
                     configuration the error names, or delete the VM by hand; this is tried again in {pause:.0?}, for ever"
                );
            }
        }
    }
}

/// Removes the sandbox's own directory with whatever the link left in it.
pub(super) async fn remove_pod_dir(record: &Record) {
    let Some(dir) = record.agent_socket.parent() else { return };
    match tokio::fs::remove_dir_all(dir).await {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            warn!(sandbox = %record.sandbox, dir = %dir.display(), error = %e, "cannot remove the sandbox's directory");
        }
        _ => {}
    }
}

/// Whether a network namespace may lie at `path`. It is gone when its name is: an ordinary file lies there for an instant when the CNI
/// removes it, and for ever when our own mounts do not see the host's, which must not end every pod of the node.
pub(super) async fn netns_exists(path: &Path) -> bool {
    let path = path.to_owned();
    let looked = tokio::task::spawn_blocking(move || std::fs::metadata(&path)).await;
    match looked {
        Ok(Err(error)) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        // There is something, or the runtime is going down, which says nothing about the namespace.
        Ok(Ok(_)) | Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::InstanceRecord;
    use crate::record::tests::a_record;

    #[test]
    fn a_deletion_is_repeated_as_long_as_the_last_creation_may_be_missed() {
        let lag = Duration::from_secs(30);
        let mut record = a_record("a");
        assert_eq!(may_be_missed_for(&record, lag, 1_000_000), Duration::ZERO, "nothing was asked for");
        record.creations_unix_ms = vec![10_000, 1_000_000];
        for (now, left) in [(1_000_000, 30), (1_010_000, 20), (1_030_000, 0), (9_000_000, 0), (0, 30)] {
            assert_eq!(may_be_missed_for(&record, lag, now), Duration::from_secs(left), "at {now}");
        }
        assert_eq!(may_be_missed_for(&record, Duration::ZERO, 1_000_000), Duration::ZERO);
    }

    #[test]
    fn a_creation_without_an_answer_counts_from_its_end_however_long_ago_it_began() {
        let lag = Duration::from_secs(30);
        let mut record = a_record("a");
        record.instance = None;
        assert_eq!(may_still_turn_up_for(&record, lag, 1_000_000), Duration::ZERO, "nothing was asked for");
        record.creations_unix_ms = vec![10_000];
        assert_eq!(may_still_turn_up_for(&record, lag, 9_000_000), lag);
        record.instance = Some(InstanceRecord { id: "i-1".to_owned(), addresses: Vec::new() });
        assert_eq!(may_still_turn_up_for(&record, lag, 20_000), Duration::from_secs(20));
        assert_eq!(may_still_turn_up_for(&record, lag, 9_000_000), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_try_that_hangs_is_followed_by_another() {
        let record = a_record("a");
        let (publisher, _published) = Publisher::new(record.sandbox.clone());
        let steps = Steps { record: &record, publisher: &publisher };
        let tries = std::cell::Cell::new(0);
        let step = || {
            tries.set(tries.get() + 1);
            let hangs = tries.get() == 1;
            async move { if hangs { std::future::pending().await } else { Ok::<(), io::Error>(()) } }
        };
        let within = Duration::from_millis(20);
        steps.until_done_with("do it", within, |_: &io::Error| Patience::NODE, step).await;
        assert_eq!(tries.get(), 2);
    }

    #[tokio::test]
    async fn a_namespace_is_gone_when_its_name_is_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("netns");
        std::fs::write(&plain, b"").unwrap();
        assert!(netns_exists(&plain).await, "mounts that are not seen here must not end pods");
        assert!(netns_exists(Path::new("/proc/self/ns/net")).await);
        assert!(!netns_exists(&dir.path().join("gone")).await);
        assert!(!netns_exists(&plain.join("below")).await);
    }
}
