//! The doors of `tests/fuzz` to what is private here: the same code, no behaviour of its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio_util::sync::CancellationToken;

use crate::control::{Answer, Ask, Asked, Lines, Refusal, Request, to_line};
use crate::link::LinkTarget;
use crate::session::engine::{Engine, Heard};
use crate::session::far::{Limits, Sessions, live};
use crate::session::record::Record;

pub use crate::admission::fuzzing::{Admission, VALIDITY};
pub use crate::far::{forward_frames, forwarded_header};
pub use crate::tls::admits;

/// How many bytes of one direction may be under way.
pub const WINDOW: usize = crate::session::WINDOW;

/// The first record of `bytes`, written again, and how long it was; none when it is not whole.
///
/// # Errors
/// What is no record.
pub fn record(bytes: &[u8]) -> Result<Option<(BytesMut, usize)>, String> {
    let Some((record, length)) = Record::parse(bytes).map_err(text)? else { return Ok(None) };
    let mut out = BytesMut::new();
    record.emit(&mut out);
    Ok(Some((out, length)))
}

/// A greeting of a near end; an id of zeros asks for a new session.
pub fn hello(id: [u8; 16], turn: u32, received: u64, out: &mut BytesMut) {
    Record::Hello { id: crate::session::Id(id), turn, received }.emit(out);
}

/// The WELCOME that `bytes` begin with, taken from them: id and what the far end has.
pub fn welcome(bytes: &mut BytesMut) -> Option<([u8; 16], u64)> {
    let (Record::Welcome { id, received }, length) = Record::parse(bytes).ok()?? else { return None };
    bytes.advance(length);
    Some((id.0, received))
}

/// One end of a session, without its connection.
#[derive(Default)]
pub struct End {
    engine: Engine,
    read: BytesMut,
}

impl End {
    /// A connection on which the other end has `received` begins; what the last one left half read is gone.
    ///
    /// # Errors
    /// A claim that cannot be.
    pub fn begin(&mut self, received: u64) -> Result<(), String> {
        self.read.clear();
        self.engine.begin(received).map_err(text)
    }

    /// Takes as much of `bytes` as there is room for, and says how much.
    pub fn say(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.engine.outgoing.room());
        self.engine.outgoing.push(bytes.get(..taken).unwrap_or_default());
        taken
    }

    /// Nothing more will be said.
    pub fn finish(&mut self) {
        self.engine.outgoing.end();
    }

    /// Appends what is to be sent now.
    pub fn emit(&mut self, out: &mut BytesMut) {
        self.engine.emit(out);
    }

    /// Understands what came; the reason, when it is a RESET.
    ///
    /// # Errors
    /// What is against the protocol.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<Option<String>, String> {
        self.read.extend_from_slice(bytes);
        while let Some((record, length)) = Record::parse(&self.read).map_err(text)? {
            if let Heard::Reset(reason) = self.engine.hear(&record).map_err(text)? {
                return Ok(Some(reason));
            }
            self.read.advance(length);
        }
        Ok(None)
    }

    /// Hands on at most `count` bytes; true when the end was handed on too.
    pub fn hand_on(&mut self, mut count: usize, to: &mut Vec<u8>) -> bool {
        let incoming = &mut self.engine.incoming;
        while count > 0 && !incoming.waiting().is_empty() {
            let part = incoming.waiting();
            let part = part.get(..count).unwrap_or(part);
            to.extend_from_slice(part);
            let taken = part.len();
            incoming.consume(taken);
            count -= taken;
        }
        let ends = incoming.end_waits();
        incoming.consume_end();
        ends
    }

    /// Asks the other end for a sign of life.
    pub fn ping(&mut self) {
        self.engine.ping();
    }

    /// Confirms at the next chance.
    pub fn ack_now(&mut self) {
        self.engine.ack_now();
    }

    /// What came, and what was handed on.
    #[must_use]
    pub fn received(&self) -> (u64, u64) {
        (self.engine.incoming.received(), self.engine.incoming.consumed())
    }

    /// True when the other end has everything, the end included.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.engine.outgoing.end_confirmed()
    }
}

/// The sessions of a far end.
pub struct FarEnd<S>(Arc<Sessions<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> FarEnd<S> {
    /// As `FarConfig` says.
    #[must_use]
    pub fn new(patience: Duration, detached: usize) -> Self {
        Self(Sessions::new(Limits { patience, detached }))
    }

    /// Serves a connection: a new session lives until it is over, and is given `agent`; a known one gets the connection.
    ///
    /// # Errors
    /// Why the connection was refused or the session ended.
    pub async fn serve(
        &self,
        stream: S,
        agent: impl FnOnce() -> DuplexStream,
        stop: &CancellationToken,
    ) -> Result<(), String> {
        match self.0.admit(stream, Duration::from_secs(10)).await.map_err(text)? {
            Some((ticket, first)) => live(ticket, first, agent(), stop).await.map_err(text),
            None => Ok(()),
        }
    }
}

/// A line of the control protocol, understood.
#[derive(Debug)]
pub enum Line {
    /// Dial.
    Connect(Box<LinkTarget>),
    /// Tell.
    Status,
    /// End.
    Close,
    /// Another version.
    Unsupported,
    /// No request.
    Fault(String),
}

/// Understands a request's line: the version of its answer, and what it asks.
#[must_use]
pub fn asked(line: &[u8]) -> (u32, Line) {
    let Asked { v, request } = Asked::parse(line);
    let line = match request {
        Ok(Request::Connect(target)) => Line::Connect(target),
        Ok(Request::Status) => Line::Status,
        Ok(Request::Close) => Line::Close,
        Err(Refusal::Unsupported) => Line::Unsupported,
        Err(Refusal::Fault(message)) => Line::Fault(message),
    };
    (v, line)
}

/// The line by which we ask the same.
///
/// # Errors
/// Never, for what can be asked.
pub fn ask(line: &Line) -> io::Result<Option<Vec<u8>>> {
    let ask = match line {
        Line::Connect(target) => Ask::connect(target),
        Line::Status => Ask::status(),
        Line::Close => Ask::close(),
        Line::Unsupported | Line::Fault(_) => return Ok(None),
    };
    to_line(&ask).map(|line| Some(line.to_vec()))
}

/// An answer's line, understood and written again.
///
/// # Errors
/// What is no answer.
pub fn answer(line: &[u8]) -> Result<Vec<u8>, String> {
    let answer: Answer = serde_json::from_slice(line).map_err(text)?;
    to_line(&answer).map(|line| line.to_vec()).map_err(text)
}

/// All lines of a stream, and how it ended when not well.
pub async fn lines<R: AsyncRead + Unpin>(from: R) -> (Vec<Vec<u8>>, Option<io::ErrorKind>) {
    let (mut lines, mut all) = (Lines::new(from), Vec::new());
    loop {
        match lines.next().await {
            Ok(Some(line)) => all.push(line.to_vec()),
            Ok(None) => return (all, None),
            Err(error) => return (all, Some(error.kind())),
        }
    }
}

/// Asks an agent whether it serves.
///
/// # Errors
/// When it does not say so.
pub async fn health<S: AsyncRead + AsyncWrite + Unpin>(agent: &mut S) -> Result<(), String> {
    crate::health::check(agent).await.map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
