//! Reaching a guest that was reached before, while the network comes and goes.
//!
//! An attempt that began before the network broke may hang for seconds after it is back. So attempts overlap, handshakes too, and the
//! first that succeeds wins. No fault of the way there ends the trying, not even a certificate: whoever answers at the guest's address while the network
//! is in disorder may be somebody else, and our own certificate may be replaced meanwhile.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::dial::{Guest, TCP_PATIENCE, Target};
use crate::relay;
use crate::tls::Fault;

/// A new attempt starts this often.
const EVERY: Duration = Duration::from_millis(500);
/// A handshake that has not ended by then gets another beside it.
const HANDSHAKE_EVERY: Duration = Duration::from_secs(1);
/// So many handshakes at most are under way.
const HANDSHAKES: usize = 3;

/// Dials until TLS stands. `newest` is asked for each attempt; `last` becomes how the last attempt failed.
///
/// # Cancel safety
/// Dropping it ends all attempts.
pub(crate) async fn until_trusted(newest: impl Fn() -> Arc<Target>, last: &mut String) -> Guest {
    let mut ports = FuturesUnordered::new();
    let mut handshakes = FuturesUnordered::new();
    let began = Instant::now();
    let mut last_handshake: Option<Instant> = None;
    let mut clock = interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {
                let recent = last_handshake.is_some_and(|began| began.elapsed() < HANDSHAKE_EVERY);
                if handshakes.is_empty() || (handshakes.len() < HANDSHAKES && !recent) {
                    ports.push(open_port(newest()));
                }
            }
            Some(port) = ports.next() => match port {
                Ok((target, tcp)) if handshakes.len() < HANDSHAKES => {
                    last_handshake = Some(Instant::now());
                    let patience = patience(began.elapsed());
                    handshakes.push(async move { target.shake_hands(tcp, patience).await });
                }
                Ok(_) => {}
                Err(error) => *last = format!("the TCP connection failed: {error}"),
            },
            Some(shaken) = handshakes.next() => match shaken {
                Ok(guest) => return guest,
                Err(Fault::Untrusted(reason) | Fault::Passing(reason)) => *last = reason,
            },
        }
    }
}

/// How long a handshake, or a greeting, may take. One that hangs keeps a place; a guest that is slow (emulation) gets more time after the first tries.
pub(crate) fn patience(tried_for: Duration) -> Duration {
    (tried_for / 4).max(HANDSHAKE_EVERY * 3)
}

async fn open_port(target: Arc<Target>) -> io::Result<(Arc<Target>, TcpStream)> {
    let tcp = timeout(TCP_PATIENCE, TcpStream::connect(target.address)).await??;
    relay::tune(&tcp);
    Ok((target, tcp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_guest_gets_more_time_the_longer_it_is_tried() {
        let patience = |seconds| patience(Duration::from_secs(seconds)).as_secs();
        assert_eq!([0, 8, 12, 20, 40, 120].map(patience), [3, 3, 3, 5, 10, 30]);
    }
}
