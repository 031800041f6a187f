//! Reaching a guest that was reached before, while the network comes and goes.
//!
//! An attempt that began before the network broke may hang for seconds after it is back. So attempts overlap, handshakes too, and the
//! first that succeeds wins. No fault of the way there ends the trying, not even a certificate: whoever answers at the guest's address while the network
//! is in disorder may be somebody else, and our own certificate may be replaced meanwhile. Only a port that is refused for a while does: nobody
//! listens there any more.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
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
/// A handshake that has not ended by then gets another beside it; later ones after somewhat longer.
const HANDSHAKE_EVERY: Duration = Duration::from_secs(1);
/// So many handshakes at most are under way.
const HANDSHAKES: usize = 8;
/// The longest a handshake takes, whatever makes room for it.
const LONGEST: Duration = Duration::from_secs(30);

/// How long a guest may do nothing but refuse connections. Its kernel lives and nobody listens: its end of the link has ended, and its
/// sessions with it. A packet filter that is being loaded anew may refuse too, for a moment.
const REFUSED_FOR: Duration = Duration::from_secs(15);

/// Nobody listens at the guest any more.
#[derive(Debug, thiserror::Error)]
#[error("the guest has refused every connection for {REFUSED_FOR:?}: its end of the link has ended")]
pub(crate) struct Deserted;

/// Dials until TLS stands. `newest` is asked for each attempt; `last` becomes how the last attempt failed.
///
/// # Errors
/// [`Deserted`].
///
/// # Cancel safety
/// Dropping it ends all attempts.
pub(crate) async fn until_trusted(
    newest: impl Fn() -> Arc<Target>,
    last: &mut String,
) -> Result<Guest, Deserted> {
    let mut refused_since: Option<Instant> = None;
    let mut ports = FuturesUnordered::new();
    let mut handshakes = Handshakes::default();
    let mut clock = interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {
                if handshakes.may_begin() {
                    ports.push(open_port(newest()));
                }
            }
            Some(port) = ports.next() => match port {
                Ok((target, tcp)) => {
                    refused_since = None;
                    if handshakes.may_begin() {
                        handshakes.begin(target, tcp);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    *last = format!("the TCP connection failed: {error}");
                    if refused_since.get_or_insert_with(Instant::now).elapsed() >= REFUSED_FOR {
                        return Err(Deserted);
                    }
                }
                Err(error) => {
                    refused_since = None;
                    *last = format!("the TCP connection failed: {error}");
                }
            },
            Some(shaken) = handshakes.next() => match shaken {
                Ok(guest) => return Ok(guest),
                Err(Fault::Untrusted(reason) | Fault::Passing(reason)) => *last = reason,
            },
        }
    }
}

type Handshake = Pin<Box<dyn Future<Output = Result<Guest, Fault>> + Send>>;

/// Handshakes that overlap, oldest first. A network that comes and goes leaves some that hang; they make room for newer ones.
#[derive(Default)]
struct Handshakes {
    under_way: VecDeque<Handshake>,
    begun: u32,
    last: Option<Instant>,
}

impl Handshakes {
    /// One at a time as long as each ends soon; a further one beside those that do not.
    fn may_begin(&self) -> bool {
        self.under_way.is_empty() || self.last.is_none_or(|last| last.elapsed() >= every(self.begun))
    }

    fn begin(&mut self, target: Arc<Target>, tcp: TcpStream) {
        if self.under_way.len() >= HANDSHAKES {
            self.under_way.pop_front();
        }
        self.last = Some(Instant::now());
        self.begun = self.begun.saturating_add(1);
        self.under_way.push_back(Box::pin(async move { target.shake_hands(tcp, LONGEST).await }));
    }

    /// The next that ends; none when there are none.
    async fn next(&mut self) -> Option<Result<Guest, Fault>> {
        if self.under_way.is_empty() {
            return None;
        }
        poll_fn(|cx| {
            for at in 0..self.under_way.len() {
                let Some(handshake) = self.under_way.get_mut(at) else { break };
                if let Poll::Ready(ended) = handshake.as_mut().poll(cx) {
                    self.under_way.remove(at);
                    return Poll::Ready(Some(ended));
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// How long after the last handshake another begins beside it: never so long that a network that is back has to wait for it. Each lives until
/// eight more have begun, eight to twelve seconds, which is enough for a guest that is slow (emulation).
fn every(begun: u32) -> Duration {
    HANDSHAKE_EVERY * (20 + begun.min(10)) / 20
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
    fn a_handshake_gets_time_and_the_next_does_not_wait_for_it() {
        let lives = |begun: u32| (begun..begun + 8).map(every).sum::<Duration>().as_millis();
        assert_eq!([1, 10, 200].map(lives), [9800, 12000, 12000]);
        assert!(every(u32::MAX) + EVERY <= Duration::from_secs(2));
    }
}
