//! The local side of a session: the shim's connection, or the way to the agent.
//!
//! Bytes go from it into the session's state and back, with a connection to the other end or without one.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::carry::End;
use super::engine::Engine;
use super::pulse::Role;
use super::queue::BLOCK;
use crate::relay::GRACE;

/// How much is read at once, and how many blocks are handed on at once.
const BLOCKS: usize = 4;

/// The shim's side, or the agent's.
pub(crate) struct Local<S> {
    stream: S,
    source_open: bool,
    flushed: bool,
    lost: Option<io::Error>,
    /// When the end was handed on.
    ended: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Local<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, source_open: true, flushed: true, lost: None, ended: None }
    }

    /// Moves what can be moved while there is no connection; ends when the local side is gone.
    pub(crate) async fn until_lost(&mut self, engine: &mut Engine) -> io::Error {
        loop {
            if let Some(error) = self.lost.take() {
                return error;
            }
            poll_fn(|cx| self.poll(cx, engine)).await;
        }
    }

    /// Hands on what has come; ends when that is done or nobody takes it.
    pub(super) async fn hand_on(&mut self, engine: &mut Engine) {
        poll_fn(|cx| {
            self.poll_sink(cx, engine);
            let waits = !engine.incoming.waiting().is_empty() || engine.incoming.end_waits();
            if self.lost.is_some() || (self.flushed && !waits) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// The same for ever: what comes for a local side that is gone is forgotten.
    pub(crate) async fn keep_moving(&mut self, engine: &mut Engine) {
        loop {
            poll_fn(|cx| self.poll(cx, engine)).await;
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, engine: &mut Engine) -> Poll<()> {
        let drained = self.poll_sink(cx, engine);
        if self.poll_source(cx, engine) || drained { Poll::Ready(()) } else { Poll::Pending }
    }

    /// True when something was handed on.
    fn poll_sink(&mut self, cx: &mut Context<'_>, engine: &mut Engine) -> bool {
        if self.lost.is_some() {
            return engine.discard();
        }
        let mut moved = false;
        while !engine.incoming.waiting().is_empty() {
            let mut parts = [IoSlice::new(&[]); BLOCKS];
            let count = engine.incoming.waiting_parts(&mut parts);
            match Pin::new(&mut self.stream).poll_write_vectored(cx, parts.get(..count).unwrap_or_default()) {
                Poll::Ready(Ok(0)) => return self.lose(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => engine.incoming.consume(written),
                Poll::Ready(Err(error)) => return self.lose(error),
                Poll::Pending => return moved,
            }
            (self.flushed, moved) = (false, true);
        }
        if !self.flushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.flushed = true,
                Poll::Ready(Err(error)) => return self.lose(error),
                Poll::Pending => return moved,
            }
        }
        if engine.incoming.end_waits() {
            match Pin::new(&mut self.stream).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => engine.incoming.consume_end(),
                Poll::Ready(Err(error)) => return self.lose(error),
                Poll::Pending => return moved,
            }
            self.ended = Some(Instant::now());
            moved = true;
        }
        moved
    }

    /// True when something was taken.
    fn poll_source(&mut self, cx: &mut Context<'_>, engine: &mut Engine) -> bool {
        let room = engine.outgoing.room_for(BLOCKS);
        if !self.source_open || room == 0 {
            return false;
        }
        // On the stack: a connection that is silent holds no buffer.
        let mut scratch = [MaybeUninit::uninit(); BLOCKS * BLOCK];
        let mut read = ReadBuf::uninit(scratch.get_mut(..room).unwrap_or_default());
        match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
            Poll::Ready(Ok(())) if read.filled().is_empty() => {
                engine.outgoing.end();
                self.source_open = false;
            }
            Poll::Ready(Ok(())) => engine.outgoing.push(read.filled()),
            Poll::Ready(Err(error)) => {
                engine.outgoing.end();
                self.source_open = false;
                self.lose(error);
            }
            Poll::Pending => return false,
        }
        true
    }

    fn lose(&mut self, error: io::Error) -> bool {
        self.lost.get_or_insert(error);
        true
    }

    /// Whether the session is complete by now. The end of the agent's direction ends the whole after a grace, as on a plain connection.
    pub(super) fn end(&mut self, engine: &Engine, role: Role) -> Option<End> {
        let (in_over, out_over) = (engine.incoming.end_consumed(), engine.outgoing.end_confirmed());
        match role {
            Role::Near => match self.lost.take() {
                Some(error) => Some(End::Lost(error)),
                None => (in_over && (out_over || self.grace_is_over())).then_some(End::Over),
            },
            Role::Far => (out_over && (in_over || self.lost.is_some())).then_some(End::Over),
        }
    }

    fn grace_is_over(&self) -> bool {
        self.ended.is_some_and(|since| since.elapsed() >= GRACE)
    }

    pub(super) fn wake(&self, role: Role) -> Option<Instant> {
        self.ended.filter(|_| role == Role::Near).map(|since| since + GRACE)
    }
}

impl Local<UnixStream> {
    /// Whether the other side has closed both its directions: it will read no answer either.
    pub(super) fn is_hung_up(&self) -> bool {
        let mut asked = [PollFd::new(self.stream.as_fd(), PollFlags::empty())];
        let told = poll(&mut asked, PollTimeout::ZERO);
        let [asked] = asked;
        told.is_ok() && asked.revents().is_some_and(|told| told.contains(PollFlags::POLLHUP))
    }
}
