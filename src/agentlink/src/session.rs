//! A byte stream between our two ends that survives the loss of its TCP connection: the resumable session.
//!
//! One connection of the shim is one session; a session uses one TLS connection after another. Both ends keep what the other has not
//! confirmed, and send it again from where the other says it is: nothing is lost, nothing comes twice. It is agreed on by ALPN
//! ([`PROTOCOL`]); a peer without ALPN gets the plain byte path, as a stock one expects.
//!
//! ```text
//! record = type u8, length u16, body of that length; numbers are big-endian; positions count a direction's bytes from 0,
//!          and its end takes one position more
//!  1 HELLO    near → far, first record   id 16 bytes (all zero: a new session), turn u32, received u64
//!  2 WELCOME  far → near, first record   id 16 bytes, received u64           (replay begins at `received`)
//!  3 GONE     far → near, first record   empty: there is no such session
//!  4 DATA     position u64, 1 to 16384 bytes
//!  5 ACK      consumed u64               handed on to the shim or the agent; the other may forget it and send so much more
//!  6 PING, 7 PONG                        empty
//!  8 FIN      position u64               the direction ends here; confirmed and replayed like a byte
//!  9 RESET    reason, at most 200 bytes  the session is over on the sender's side; an empty reason: in good order
//! ```
//!
//! A call waits for no more than what is ahead of it: between the shim's socket and the agent at most the window (512 KiB), and what the
//! kernel holds for the agent (64 KiB, which it doubles), and the frame that was begun.
//!
//! `received` counts what a side holds, `consumed` what it has handed on. A side has at most [`WINDOW`] bytes under way that the other
//! has not consumed, so a reader never has to stop reading, and pings are answered however slow the agent is. `turn` counts the near
//! end's HELLOs of a session: one that arrives after a later one is an old connection that woke up, and is closed.
//!
//! What a stream takes of memory, at most a window each way and what goes out at once, is used again while it lasts and given back to the
//! allocator within 20 seconds. The system may get it later: a link was seen at 0.8 and at 1.7 MiB after streams.
//!
//! The near end asks after five idle seconds, takes three seconds of silence for a break and dials at once ([`redial`]). The far end
//! never asks. A session's id is made by the far end and honoured over mutual TLS only.
//!
//! Pure: [`record`] (codec), [`queue`] and [`replay`] (what is kept, sent again, accepted), [`engine`] (both directions), [`pulse`] (when to ask, when
//! to give up). At the edge: [`local`] (shim or agent), [`carry`] (one connection), [`near`], [`far`].

pub(crate) mod carry;
pub(crate) mod engine;
pub(crate) mod far;
pub(crate) mod local;
pub(crate) mod near;
pub(crate) mod pulse;
pub(crate) mod queue;
pub(crate) mod record;
pub(crate) mod redial;
pub(crate) mod replay;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;

/// The protocol's name in ALPN.
pub(crate) const PROTOCOL: &[u8] = b"peerpods-session/1";
/// How many bytes of one direction may be under way, unconfirmed.
pub(crate) const WINDOW: usize = 512 * 1024;

/// A session's name: 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Id(pub(crate) [u8; 16]);

impl Id {
    /// Asks for a new session.
    pub(crate) const NEW: Self = Self([0; 16]);
}

impl fmt::Debug for Id {
    /// Not the whole: a log must not be enough to take a session over.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, ..] = self.0;
        write!(f, "{first:02x}{second:02x}..")
    }
}

/// Lets the kernel give up what its peer does not confirm for `limit`. Best effort.
pub(crate) fn tune(stream: &TcpStream, limit: Duration) {
    let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = setsockopt(stream, sockopt::TcpUserTimeout, &millis) {
        tracing::debug!(%error, "cannot bound how long sent bytes may stay unconfirmed");
    }
}
