//! Turns: how many of the calls nobody waits for begin at once, so that a restart with two hundred sandboxes is no stampede.
//!
//! A turn is held for [`HELD`] at most: a call that hangs goes on without it, and keeps nobody else waiting for ever. Requests of the
//! shim take no turn.

use std::time::Duration;

use tokio::sync::Semaphore;

/// Calls of the provider that begin together.
const PROVIDER: usize = 16;
/// Links opened and tunnels mended together: processes and netlink on this node.
const NODE: usize = 8;
/// How long a call keeps its turn.
const HELD: Duration = Duration::from_secs(5);

/// The turns of one service.
#[derive(Debug)]
pub(crate) struct Turns {
    provider: Semaphore,
    node: Semaphore,
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self { provider: Semaphore::new(PROVIDER), node: Semaphore::new(NODE) }
    }

    /// Calls the provider when it is its turn.
    pub(crate) async fn provider<T>(&self, call: impl Future<Output = T>) -> T {
        in_turn(&self.provider, call, HELD).await
    }

    /// Works on this node's processes or network when it is its turn.
    pub(crate) async fn node<T>(&self, work: impl Future<Output = T>) -> T {
        in_turn(&self.node, work, HELD).await
    }
}

async fn in_turn<T>(turns: &Semaphore, work: impl Future<Output = T>, held: Duration) -> T {
    // Never closed, so a failure would only mean that there is no bound.
    let turn = turns.acquire().await.ok();
    tokio::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = tokio::time::sleep(held) => drop(turn),
    }
    work.await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::future::pending;

    #[tokio::test]
    async fn only_so_many_begin_at_once_and_each_end_lets_another_begin() {
        let turns = Semaphore::new(2);
        let (first, second) = (turns.acquire().await.unwrap(), turns.acquire().await.unwrap());
        assert!(in_turn(&turns, async {}, HELD).now_or_never().is_none(), "the third waits");
        drop(first);
        assert_eq!(in_turn(&turns, async { 3 }, HELD).now_or_never(), Some(3));
        drop(second);
    }

    #[tokio::test]
    async fn a_call_that_hangs_keeps_nobody_waiting_for_ever() {
        let turns = Semaphore::new(1);
        let hangs = in_turn(&turns, pending::<()>(), Duration::from_millis(20));
        tokio::pin!(hangs);
        assert!(hangs.as_mut().now_or_never().is_none());
        let next = async {
            let done = in_turn(&turns, async { 4 }, HELD).await;
            assert_eq!(done, 4);
        };
        tokio::select! {
            biased;
            () = hangs => unreachable!("it hangs"),
            () = next => {}
        }
    }
}
