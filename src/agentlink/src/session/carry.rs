//! One session over one connection: bytes between the local side (shim or agent), the session's state and the wire.
//!
//! All of it is one task's work: whatever is polled here leaves the state whole, so the futures may be dropped at any await and the
//! session goes on over another connection.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::io::poll_read_buf;

use super::WINDOW;
use super::engine::{Engine, Heard, Sent, Violation};
use super::local::Local;
use super::pulse::{Due, Pulse, Role, SILENCE};
use super::record::Record;

/// How much is read at once.
const CHUNK: usize = 16 * 1024;
/// How often in a row one side is read before the other has its turn: TLS gives a record at a time.
const TURNS: usize = 4;
/// How long the last words may take.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long the local side may take for what came before a RESET.
const HAND_ON: Duration = Duration::from_secs(5);
/// Why a connection no longer carries the session.
#[derive(Debug)]
pub(crate) enum End {
    /// Both directions are complete.
    Over,
    /// The connection broke; another one may go on.
    Broken(String),
    /// The peer has ended the session.
    Reset(String),
    /// The peer broke the protocol.
    Violated(Violation),
    /// The local side is gone.
    Lost(io::Error),
}

/// A connection to the other end, with what was read and not understood yet, and what is not sent yet.
pub(crate) struct Wire<S> {
    stream: S,
    read: BytesMut,
    out: BytesMut,
    flushed: bool,
}

/// What one look at the wire did.
#[derive(Default, Clone, Copy)]
struct Passed {
    heard: bool,
    asked: bool,
    moved: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, read: BytesMut::new(), out: BytesMut::new(), flushed: true }
    }

    /// Puts a record into the queue of what is sent.
    pub(crate) fn say(&mut self, record: &Record<'_>) {
        record.emit(&mut self.out);
    }

    /// Reads the peer's first record, and hands it to `take`.
    ///
    /// # Errors
    /// `InvalidData` for what is no record, `UnexpectedEof` when the peer closes.
    pub(crate) async fn first<T>(&mut self, take: impl FnOnce(&Record<'_>) -> T) -> io::Result<T> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        self.flush().await?;
        while Record::parse(&self.read).map_err(invalid)?.is_none() {
            let read = poll_fn(|cx| poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.read)).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let Some((record, length)) = Record::parse(&self.read).map_err(invalid)? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let taken = take(&record);
        self.read.advance(length);
        Ok(taken)
    }

    /// Says all that is left to say and a RESET, and closes. Best effort, and soon over.
    pub(crate) async fn farewell(mut self, engine: &mut Engine, reason: &str) {
        engine.ack_now();
        let _ = timeout(FAREWELL, async {
            while engine.emit(&mut self.out) != Sent::Nothing {
                self.flush().await?;
            }
            io::Result::Ok(())
        })
        .await;
        self.refuse(&Record::Reset { reason: reason.as_bytes() }).await;
    }

    /// Says one last record and closes. Best effort, and soon over.
    pub(crate) async fn refuse(mut self, record: &Record<'_>) {
        self.say(record);
        let _ = timeout(FAREWELL, async {
            self.flush().await?;
            self.stream.shutdown().await
        })
        .await;
    }

    /// Sends what is in the queue.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            self.stream.write_buf(&mut self.out).await?;
        }
        self.stream.flush().await
    }

    /// Gives back empty buffers: a connection that is silent holds none.
    fn rest(&mut self) {
        for buffer in [&mut self.read, &mut self.out] {
            if buffer.is_empty() {
                *buffer = BytesMut::new();
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, engine: &mut Engine) -> Poll<Result<Passed, End>> {
        let mut passed = Passed::default();
        let sent = self.poll_send(cx, engine, &mut passed);
        self.poll_hear(cx, engine, &mut passed)?;
        if let Err(error) = sent {
            // A peer that said why it closed is heard although nothing can be sent to it any more, whatever it said before that.
            for _ in 0..WINDOW / CHUNK {
                self.poll_hear(cx, engine, &mut passed)?;
            }
            return Poll::Ready(Err(broken(error)));
        }
        if passed.moved || passed.heard { Poll::Ready(Ok(passed)) } else { Poll::Pending }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        engine: &mut Engine,
        passed: &mut Passed,
    ) -> io::Result<()> {
        if self.out.is_empty() {
            let sent = engine.emit(&mut self.out);
            passed.asked |= sent == Sent::Asked;
        }
        while !self.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => self.out.advance(written?),
                Poll::Pending => return Ok(()),
            }
            (self.flushed, passed.moved) = (false, true);
        }
        if !self.flushed && Pin::new(&mut self.stream).poll_flush(cx)?.is_ready() {
            self.flushed = true;
        }
        Ok(())
    }

    fn poll_hear(
        &mut self,
        cx: &mut Context<'_>,
        engine: &mut Engine,
        passed: &mut Passed,
    ) -> Result<(), End> {
        for _ in 0..TURNS {
            // Before reading: something may have come with the greeting.
            self.understand(engine)?;
            self.read.reserve(CHUNK);
            match poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.read) {
                Poll::Ready(Ok(0)) => {
                    return Err(End::Broken("the other end closed the connection".to_owned()));
                }
                Poll::Ready(Ok(_)) => passed.heard = true,
                Poll::Ready(Err(error)) => return Err(broken(error)),
                Poll::Pending => return Ok(()),
            }
        }
        self.understand(engine)
    }

    fn understand(&mut self, engine: &mut Engine) -> Result<(), End> {
        loop {
            let record = Record::parse(&self.read).map_err(|error| End::Violated(error.into()))?;
            let Some((record, length)) = record else { return Ok(()) };
            match engine.hear(&record).map_err(End::Violated)? {
                Heard::Sign => self.read.advance(length),
                Heard::Reset(reason) => return Err(End::Reset(reason)),
            }
        }
    }
}

fn broken(error: io::Error) -> End {
    End::Broken(error.to_string())
}

/// Carries the session over this connection until it ends or the connection no longer can.
///
/// # Cancel safety
/// Dropping it leaves a session that another connection can carry on.
pub(crate) async fn carry<S, L>(
    wire: &mut Wire<S>,
    engine: &mut Engine,
    local: &mut Local<L>,
    role: Role,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
    L: AsyncRead + AsyncWrite + Unpin,
{
    let mut pulse = Pulse::new(role, Instant::now());
    let mut alarm = pin!(sleep_until(pulse.wake()));
    loop {
        if let Some(end) = local.end(engine, role) {
            return end;
        }
        pulse.owes_ack(engine.owes_ack(), Instant::now());
        let wake = local.wake(role).map_or(pulse.wake(), |grace| pulse.wake().min(grace));
        // Only ever brought forward: to set a timer anew for every record costs a system call. One that is early finds nothing due.
        if wake < alarm.deadline() || alarm.is_elapsed() {
            alarm.as_mut().reset(wake);
        }
        let step = poll_fn(|cx| {
            let moved = local.poll(cx, engine).is_ready();
            match wire.poll(cx, engine) {
                Poll::Pending if moved => Poll::Ready(Ok(Passed::default())),
                other => other,
            }
        });
        tokio::select! {
            biased;
            passed = step => match passed {
                Ok(passed) => note(&mut pulse, passed),
                Err(end @ End::Reset(_)) => {
                    let _ = timeout(HAND_ON, local.hand_on(engine)).await;
                    return end;
                }
                Err(end) => return end,
            },
            () = alarm.as_mut() => {
                // It rings soon after the last bytes, and whatever passes after at most FAR_SILENCE: often enough to hold nothing for
                // long, and seldom enough for a stream.
                engine.rest();
                wire.rest();
                match pulse.due(Instant::now()) {
                    Due::Ask => engine.ping(),
                    Due::Ack => engine.ack_now(),
                    Due::Broken => return End::Broken(format!("no answer for {SILENCE:?} or more")),
                    Due::Nothing => {}
                }
            }
        }
    }
}

fn note(pulse: &mut Pulse, passed: Passed) {
    let now = Instant::now();
    if passed.heard {
        pulse.heard(now);
    }
    if passed.asked {
        pulse.asked(now);
    }
}

#[cfg(test)]
mod tests;
