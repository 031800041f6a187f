//! What the daemon and a link process say to each other on `link.sock`: one JSON object a line, versioned.
//!
//! ```text
//! {"v":1,"op":"status"}                → {"v":1,"answer":"status",…}
//! {"v":1,"op":"connect","target":{…}}  → {"v":1,"answer":"connected",…} | deadline | untrusted   (hanging up stops the dialling)
//! {"v":2,"op":"connect","target":{…,"guest":{"token":…}}}   or {"key":…}: a guest that makes its own key (`admission.rs`)
//! {"v":1,"op":"close"}                 → {"v":1,"answer":"closing"}, then EOF
//! a version that is not spoken         → {"v":2,"answer":"unsupported","speaks":{"oldest":1,"newest":2}}
//! anything else                        → {"v":1,"answer":"error","message":…}
//! ```
//!
//! A link lives as long as its pod, so each side meets older and newer versions of the other. What keeps them together:
//!
//! - A request names the **oldest version that understands it**, not the newest its sender knows. What every link does, a daemon of any
//!   version can ask.
//! - An answer carries the request's version, and only what that version knows. An answer with a **lower** version than the request,
//!   or `unsupported`, means that the link does not know the request: the first links answered so too. `unsupported` and a line that is no
//!   request have no version to repeat: the newest and the oldest spoken stand in.
//! - A field that is not known is ignored, one that is missing has a default, a word that is not known reads as "unknown". So new
//!   fields need no new version; a new operation, or a new meaning, does.
//! - `status` says which versions are spoken; a link that does not say so speaks 1.
//!
//! This module owns the messages and the bounded lines, not what is done about them. Lines may carry a private key or
//! a token: their buffers are wiped.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::{Zeroize, Zeroizing};

use crate::link::{Connected, GuestTrust, LinkTarget, ShimProcess};

/// The versions this program speaks, as link and as daemon.
pub(crate) const SPOKEN: Speaks = Speaks { oldest: 1, newest: 2 };
/// The first version in which a `connect` can say how the guest is known.
pub(crate) const GUEST_TRUST: u32 = 2;
/// The longest line in bytes: three PEM texts with room to spare.
pub(crate) const MAX_LINE: usize = 64 * 1024;

/// What the daemon asks.
#[derive(Debug)]
pub(crate) enum Request {
    Connect(Box<LinkTarget>),
    Status,
    Close,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    v: u32,
    #[serde(borrow)]
    op: Cow<'a, str>,
}

#[derive(Deserialize)]
struct ConnectBody {
    target: Box<LinkTarget>,
}

/// Why a line is no request that can be served.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It needs a version that is not spoken here.
    Unsupported,
    /// It cannot be read. The text repeats nothing of the line but the operation's name.
    Fault(String),
}

/// A line that was read: what it asks, and the version its answer must have.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) v: u32,
    pub(crate) request: Result<Request, Refusal>,
}

impl Asked {
    /// Reads a line.
    pub(crate) fn parse(line: &[u8]) -> Self {
        let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(line) else {
            let fault = "this is no JSON object with the fields v and op".to_owned();
            return Self { v: SPOKEN.oldest, request: Err(Refusal::Fault(fault)) };
        };
        if !SPOKEN.includes(envelope.v) {
            return Self { v: SPOKEN.newest, request: Err(Refusal::Unsupported) };
        }
        Self { v: envelope.v, request: Request::parse(&envelope.op, line).map_err(Refusal::Fault) }
    }
}

impl Request {
    fn parse(op: &str, line: &[u8]) -> Result<Self, String> {
        match op {
            "connect" => serde_json::from_slice(line)
                .map(|body: ConnectBody| Self::Connect(body.target))
                .map_err(|error| format!("the target cannot be read: {:?} error", error.classify())),
            "status" => Ok(Self::Status),
            "close" => Ok(Self::Close),
            other => {
                Err(format!("the operation {:?} is not known", other.chars().take(40).collect::<String>()))
            }
        }
    }
}

/// A request as it is sent.
#[derive(Serialize)]
pub(crate) struct Ask<'a> {
    /// The oldest version that understands it.
    pub(crate) v: u32,
    op: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a LinkTarget>,
}

impl<'a> Ask<'a> {
    pub(crate) fn connect(target: &'a LinkTarget) -> Self {
        let v = if target.guest == GuestTrust::Authority { 1 } else { GUEST_TRUST };
        Self { v, op: "connect", target: Some(target) }
    }
    pub(crate) fn status() -> Self {
        Self { v: 1, op: "status", target: None }
    }
    pub(crate) fn close() -> Self {
        Self { v: 1, op: "close", target: None }
    }
}

/// What the link process answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) v: u32,
    #[serde(flatten)]
    pub(crate) body: Body,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Body {
    Connected(Connected),
    Deadline {
        address: SocketAddr,
        after: Duration,
        last: String,
    },
    Untrusted {
        address: SocketAddr,
        reason: String,
    },
    Status(Status),
    Closing,
    /// The request's version is not spoken.
    Unsupported {
        speaks: Speaks,
    },
    Error {
        message: String,
    },
}

/// What a link process is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The sandbox it serves.
    pub sandbox: String,
    /// The process.
    pub pid: u32,
    /// Its program's version.
    pub version: String,
    /// What it knows of the guest.
    pub guest: GuestState,
    /// How many connections of the shim are open.
    pub shims: usize,
    /// Whether a process that connected to the agent socket lives.
    #[serde(default)]
    pub shim: ShimProcess,
    /// The versions of the control protocol it speaks.
    #[serde(default)]
    pub speaks: Speaks,
}

/// A range of versions of the control protocol, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaks {
    /// The oldest.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
}

impl Speaks {
    /// Whether a version is among them.
    #[must_use]
    pub fn includes(self, version: u32) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }
}

impl Default for Speaks {
    /// The first links did not say; they speak 1.
    fn default() -> Self {
        Self { oldest: 1, newest: 1 }
    }
}

/// What a link knows of its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestState {
    /// The agent answered, and the connection it answered on stands, or a session of a shim has one that works.
    Connected,
    /// The agent answered once, and that connection broke. A session may find the guest again.
    Lost,
    /// No `connect` has succeeded, or the link is newer and its word for it is not known here.
    #[serde(other)]
    Unknown,
}

/// A message as one line, in a buffer that is wiped.
pub(crate) fn to_line(message: &impl Serialize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Enough from the start: a growing buffer leaves copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE));
    serde_json::to_writer(&mut *line, message)?;
    line.push(b'\n');
    Ok(line)
}

/// Lines from a peer, each at most [`MAX_LINE`] long.
pub(crate) struct Lines<R> {
    reader: R,
    read: Zeroizing<Vec<u8>>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, read: Zeroizing::new(Vec::with_capacity(MAX_LINE)) }
    }

    /// The next line without its end; none when the peer has closed.
    ///
    /// # Errors
    /// `InvalidData` for a line that is too long, `UnexpectedEof` for one that was cut off.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.take_line(end)));
            }
            if self.fill().await? == 0 {
                return if self.read.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// Waits until the peer hangs up; lines that come meanwhile are kept.
    ///
    /// # Cancel safety
    /// Nothing that was read is lost.
    pub(crate) async fn hung_up(&mut self) -> io::Result<()> {
        while self.fill().await? > 0 {}
        Ok(())
    }

    fn take_line(&mut self, end: usize) -> Zeroizing<Vec<u8>> {
        let line = Zeroizing::new(self.read.get(..end).unwrap_or_default().to_vec());
        let kept = self.read.len() - end - 1;
        self.read.copy_within(end + 1.., 0);
        if let Some(tail) = self.read.get_mut(kept..) {
            tail.zeroize();
        }
        self.read.truncate(kept);
        line
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let room = MAX_LINE.saturating_sub(self.read.len());
        if room == 0 {
            let text = format!("a line is longer than {MAX_LINE} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let room = u64::try_from(room).unwrap_or(0);
        (&mut self.reader).take(room).read_buf(&mut *self.read).await
    }
}

#[cfg(test)]
mod tests;
