//! Trying out what a tunnel needs, in a network namespace that only one thread of ours sees and that ends with it.

use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkVxlan;

/// How long the kernel may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The device's name, in a namespace of its own.
const DEVICE: &str = "doctor0";

/// Makes a network namespace, a VXLAN device in it, and removes both. Blocks.
///
/// # Errors
/// One sentence: which step failed and what the kernel said.
pub fn try_out() -> Result<(), String> {
    in_a_namespace(vxlan())
}

/// Runs a trial on a thread in a network namespace of its own. Blocks.
pub(super) fn in_a_namespace<T: Send + 'static>(
    trial: impl Future<Output = Result<T, String>> + Send + 'static,
) -> Result<T, String> {
    let tried = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| format!("cannot make a network namespace: {errno}"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
        runtime.block_on(async {
            match tokio::time::timeout(PATIENCE, trial).await {
                Ok(tried) => tried,
                Err(_) => Err(format!("netlink did not answer within {PATIENCE:?}")),
            }
        })
    });
    tried.join().unwrap_or_else(|_| Err("the thread that tried netlink panicked".to_owned()))
}

async fn vxlan() -> Result<(), String> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|error| format!("cannot open netlink: {error}"))?;
    tokio::spawn(connection);
    let device = LinkVxlan::new(DEVICE, 1).port(9000).learning(false).build();
    handle
        .link()
        .add(device)
        .execute()
        .await
        .map_err(|error| format!("cannot make a VXLAN device: {error}"))?;
    let index = nix::net::if_::if_nametoindex(DEVICE)
        .map_err(|errno| format!("the VXLAN device is not there: {errno}"))?;
    handle
        .link()
        .del(index)
        .execute()
        .await
        .map_err(|error| format!("cannot remove the VXLAN device: {error}"))
}
