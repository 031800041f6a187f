//! The agent as a session sees it: a stream that is dialled when the first bytes are to go there.
//!
//! ```text
//! idle ─ first bytes ─▶ dialling ─▶ up ─ no ttrpc, or a write that fails ─▶ deaf ─ the agent ends, or the grace is over ─▶ over
//! ```

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Instant, Sleep, sleep};

use super::ForwardError;
use super::frames::ToAgent;
use crate::relay;

/// How often the agent's socket is tried while the agent comes up.
const RETRY: Duration = Duration::from_millis(50);

/// Dials the agent for at most `patience`.
pub(super) async fn dial(path: &Path, patience: Duration) -> Result<UnixStream, ForwardError> {
    let started = Instant::now();
    loop {
        match UnixStream::connect(path).await {
            Ok(agent) => {
                relay::bound_agent(&agent);
                return Ok(agent);
            }
            Err(last) if started.elapsed() >= patience => {
                return Err(ForwardError::Agent { path: path.to_owned(), after: patience, last });
            }
            Err(error) => tracing::trace!(%error, "the agent is not there yet"),
        }
        sleep(RETRY).await;
    }
}

type Dialling = Pin<Box<dyn Future<Output = Result<UnixStream, ForwardError>> + Send>>;

enum State {
    Idle {
        path: PathBuf,
        patience: Duration,
    },
    Dialling(Dialling),
    Up(ToAgent<UnixStream>),
    /// Nothing goes to the agent any more; what it said before is still worth delivering.
    Deaf(UnixStream, Pin<Box<Sleep>>),
    Over,
}

/// The agent, for the connection of one peer.
pub(super) struct Agent {
    state: State,
    netns: String,
    peer: SocketAddr,
}

impl Agent {
    pub(super) fn new(path: PathBuf, patience: Duration, netns: &str, peer: SocketAddr) -> Self {
        Self { state: State::Idle { path, patience }, netns: netns.to_owned(), peer }
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut ToAgent<UnixStream>>> {
        if let State::Idle { path, patience } = &mut self.state {
            let (path, patience) = (std::mem::take(path), *patience);
            self.state = State::Dialling(Box::pin(async move { dial(&path, patience).await }));
        }
        if let State::Dialling(dialling) = &mut self.state {
            let dialled = ready!(dialling.as_mut().poll(cx)).inspect_err(|_| self.state = State::Over)?;
            self.state = State::Up(ToAgent::new(dialled, &self.netns));
        }
        match &mut self.state {
            State::Up(agent) => Poll::Ready(Ok(agent)),
            _ => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// What is done with the agent; a failure of it ends this direction, and is told in the log.
    fn poll_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        what: impl FnOnce(Pin<&mut ToAgent<UnixStream>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let done = match ready!(self.poll_up(cx)) {
            Ok(agent) => ready!(what(Pin::new(agent), cx)),
            Err(error) => Err(error),
        };
        if let Err(error) = &done {
            tracing::warn!(peer = %self.peer, %error, "session closed");
            self.deafen(cx);
        }
        Poll::Ready(done)
    }

    fn deafen(&mut self, cx: &mut Context<'_>) {
        if let State::Up(up) = std::mem::replace(&mut self.state, State::Over) {
            let mut agent = up.agent;
            // A unix socket's never waits.
            let _ = Pin::new(&mut agent).poll_shutdown(cx);
            self.state = State::Deaf(agent, Box::pin(sleep(relay::GRACE)));
        }
    }
}

impl AsyncRead for Agent {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().state {
            // The same task writes, and is woken then.
            State::Idle { .. } | State::Dialling(_) => Poll::Pending,
            State::Up(up) => Pin::new(&mut up.agent).poll_read(cx, into),
            State::Deaf(agent, grace) => match Pin::new(agent).poll_read(cx, into) {
                Poll::Pending => grace.as_mut().poll(cx).map(Ok),
                read => read,
            },
            State::Over => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Agent {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_with(cx, |agent, cx| agent.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_with(cx, |agent, cx| agent.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.state {
            State::Up(_) => this.poll_with(cx, |agent, cx| agent.poll_flush(cx)),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// One to whom nothing was ever said is not dialled for it.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(this.state, State::Idle { .. }) {
            this.state = State::Over;
        }
        match this.state {
            State::Dialling(_) | State::Up(_) => this.poll_with(cx, |agent, cx| agent.poll_shutdown(cx)),
            _ => Poll::Ready(Ok(())),
        }
    }
}
