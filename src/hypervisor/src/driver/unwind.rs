//! Removing a sandbox: link, tunnel and VM, then files and record. Each step is idempotent and is
//! repeated until it is done; the record goes last, so a crash anywhere resumes here.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::link_spec;
use super::start::tunnel_spec;
use crate::backoff::{self, Backoff};
use crate::context::Context;
use crate::record::Record;

/// StopVM is answered after this at the latest; the link's end is retried in the background.
const CLOSE_BUDGET: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Closes the link within a fraction of the shim's second; [`unwind`] closes it again if that was not enough.
pub(super) async fn close_link(context: &Context, record: &Record) {
    let closed = tokio::time::timeout(CLOSE_BUDGET, context.parts.link.close(&link_spec(record))).await;
    match closed {
        Ok(Ok(())) => {}
        Ok(Err(e)) => warn!(sandbox = %record.sandbox, error = %e, "cannot close the link; will try again"),
        Err(_) => warn!(sandbox = %record.sandbox, "closing the link takes long; going on in the background"),
    }
}

/// Removes everything a sandbox may have left. Ends only when the provider confirmed and the record is gone. The VM, which costs
/// money, does not wait for what is on this node.
pub(super) async fn unwind(context: Arc<Context>, record: Record) {
    let parts = &context.parts;
    let (link, key) = (link_spec(&record), record.key());
    let on_this_node = async {
        until_done(&record, "close the link", || parts.link.close(&link)).await;
        if let Some(tunnel) = tunnel_spec(&record) {
            until_done(&record, "tear the tunnel down", || parts.tunnel.teardown(&record.netns, &tunnel))
                .await;
        }
    };
    let elsewhere = async {
        until_done(&record, "delete the VM", || context.turns.provider(parts.provider.delete(&key))).await;
        parts.ledger.release(&key).await;
    };
    tokio::join!(on_this_node, elsewhere);
    remove_pod_dir(&record).await;
    until_done(&record, "remove the record", || context.parts.journal.remove(&record.sandbox)).await;
    context.vnis.release(record.vni);
    context.capacity.release(&record.sandbox);
    info!(sandbox = %record.sandbox, vm = %record.vm_name, "gone");
}

/// Repeats an idempotent step until it succeeds, with growing pauses that the provider may lengthen.
pub(super) async fn until_done<E, F>(record: &Record, what: &'static str, mut step: impl FnMut() -> F)
where
    E: std::error::Error + 'static,
    F: Future<Output = Result<(), E>>,
{
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    while let Err(error) = step().await {
        let cause = error.source().map(ToString::to_string);
        let pause = backoff.next(backoff::hint(&error));
        warn!(sandbox = %record.sandbox, %error, cause, "cannot {what}; trying again in {pause:.1?}");
        tokio::time::sleep(pause).await;
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

/// Whether a network namespace lies at `path`. `ip netns` and the CNI leave an ordinary file for an instant before they remove it.
pub(super) async fn netns_exists(path: &Path) -> bool {
    let path = path.to_owned();
    let looked = tokio::task::spawn_blocking(move || nix::sys::statfs::statfs(&path)).await;
    match looked {
        Ok(Ok(found)) => found.filesystem_type() == nix::sys::statfs::NSFS_MAGIC,
        Ok(Err(_)) => false,
        // The runtime is going down; that says nothing about the namespace.
        Err(_) => true,
    }
}
