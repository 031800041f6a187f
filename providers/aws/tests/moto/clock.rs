//! Time that passes as fast as the work in it: minutes of waiting in line take seconds, over real sockets, and a busy machine makes
//! them take longer and nothing else.
//!
//! Tokio's clock stands still and is moved on by [`STEP`] after each round of the runtime, which does what can be done now, sockets
//! included. Client, proxy and clock share one thread, so that whatever holds up one holds up all. While moto is asked, which has a
//! clock of its own, time stands.

use std::sync::mpsc;
use std::time::Duration;

use crate::proxy::Proxy;

/// By how much time moves on at once; an answer over loopback takes a few of them.
const STEP: Duration = Duration::from_millis(5);

/// Does `work` in a time that does not have to pass. The proxy is one of this thread ([`Proxy::start_here`]).
pub(crate) async fn quickly<T>(proxy: &Proxy, work: impl Future<Output = T>) -> T {
    // Paused time jumps to the next timer whenever only sockets are waited for, except while something blocks.
    let (done, blocks) = mpsc::channel::<()>();
    let blocking = tokio::task::spawn_blocking(move || blocks.recv());
    tokio::time::pause();
    let moving = async {
        loop {
            if proxy.asks_moto() {
                // The processor is moto's for a moment.
                std::thread::sleep(Duration::from_millis(1));
                tokio::task::yield_now().await;
            } else {
                tokio::time::advance(STEP).await;
            }
        }
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = moving => unreachable!("time moves on for ever"),
    };
    tokio::time::resume();
    drop(done);
    let _ended = blocking.await;
    outcome
}
