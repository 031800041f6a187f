//! What the daemon and a link process say to each other on `link.sock`: one JSON object a line, versioned.
//!
//! ```text
//! {"v":1,"op":"status"}                → {"v":1,"answer":"status",…}
//! {"v":1,"op":"connect","target":{…}}  → {"v":1,"answer":"connected",…} | deadline | untrusted   (hanging up stops the dialling)
//! {"v":1,"op":"close"}                 → {"v":1,"answer":"closing"}, then EOF
//! anything else                        → {"v":1,"answer":"error","message":…}
//! ```
//!
//! This module owns the messages and the bounded lines, not what is done about them. Lines may carry a private key: their buffers
//! are wiped.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};
use zeroize::{Zeroize, Zeroizing};

use crate::link::{Connected, LinkTarget};

/// The version both sides speak. Unknown fields are ignored, so only a change of meaning raises it.
pub(crate) const VERSION: u32 = 1;
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

impl Request {
    /// Reads a line. The error is the text of the answer; it repeats nothing of the line but the operation's name.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, String> {
        let envelope: Envelope<'_> = serde_json::from_slice(line)
            .map_err(|_| "this is no JSON object with the fields v and op".to_owned())?;
        if envelope.v != VERSION {
            return Err(format!("version {} is not spoken here, only {VERSION}", envelope.v));
        }
        match envelope.op.as_ref() {
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
    v: u32,
    op: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a LinkTarget>,
}

impl<'a> Ask<'a> {
    pub(crate) fn connect(target: &'a LinkTarget) -> Self {
        Self { v: VERSION, op: "connect", target: Some(target) }
    }
    pub(crate) fn status() -> Self {
        Self { v: VERSION, op: "status", target: None }
    }
    pub(crate) fn close() -> Self {
        Self { v: VERSION, op: "close", target: None }
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
    Deadline { address: SocketAddr, after: Duration, last: String },
    Untrusted { address: SocketAddr, reason: String },
    Status(Status),
    Closing,
    Error { message: String },
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
}

/// What a link knows of its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestState {
    /// No `connect` has succeeded.
    Unknown,
    /// The agent answered, and the connection it answered on stands, or a session of a shim has one that works.
    Connected,
    /// The agent answered once, and that connection broke. A session may find the guest again.
    Lost,
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
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_what_is_read() {
        let target = LinkTarget {
            address: "10.0.0.7:15150".parse().unwrap(),
            server_name: "podvm-x".to_owned(),
            identity: crate::link::LinkIdentity {
                certificate: "c\n".to_owned(),
                key: "k".to_owned(),
                authority: "a".to_owned(),
            },
            deadline: Duration::from_millis(1500),
        };
        let line = to_line(&Ask::connect(&target)).unwrap();
        let Ok(Request::Connect(read)) = Request::parse(&line) else { panic!("not a connect") };
        assert_eq!((read.address, read.deadline), (target.address, target.deadline));
        assert_eq!(read.identity.certificate, "c\n");
        assert!(matches!(Request::parse(&to_line(&Ask::status()).unwrap()), Ok(Request::Status)));
        assert!(matches!(Request::parse(&to_line(&Ask::close()).unwrap()), Ok(Request::Close)));
    }

    #[test]
    fn other_versions_operations_and_texts_are_told_so() {
        for (line, expected) in [
            (r#"{"v":2,"op":"status"}"#, "version 2"),
            (r#"{"v":1,"op":"dance"}"#, "\"dance\""),
            (r#"{"v":1}"#, "no JSON object"),
            ("", "no JSON object"),
            (r#"{"v":1,"op":"connect","target":{"key":"SECRET"}}"#, "target"),
        ] {
            let message = Request::parse(line.as_bytes()).unwrap_err();
            assert!(message.contains(expected) && !message.contains("SECRET"), "{line}: {message}");
        }
    }

    #[tokio::test]
    async fn lines_are_bounded_and_kept_apart() {
        let mut lines = Lines::new(&b"one\ntwo\nthr"[..]);
        assert_eq!(lines.next().await.unwrap().unwrap().as_slice(), b"one");
        assert_eq!(lines.next().await.unwrap().unwrap().as_slice(), b"two");
        assert_eq!(lines.next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let long = vec![b'x'; MAX_LINE + 1];
        let error = Lines::new(&long[..]).next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
