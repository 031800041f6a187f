//! What connections have in common: bytes forwarded, two directions run together and ended together, socket options, how many there are.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// How long one direction may go on after the agent's side of the other has ended: enough to carry what was under way.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// Runs both directions. The end of `up` (the shim said all it will) is a half-close: `down` goes on, because answers may be
/// outstanding. The end of `down` (the agent will answer nothing more) ends the whole after a grace. Both futures must pass their
/// own end on to their writer.
pub(crate) async fn both<E>(
    up: impl Future<Output = Result<(), E>>,
    down: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    both_with(GRACE, up, down).await
}

async fn both_with<E>(
    grace: Duration,
    up: impl Future<Output = Result<(), E>>,
    down: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut down => {
            ended?;
            timeout(grace, up).await.unwrap_or(Ok(()))
        }
        ended = &mut up => match ended {
            Ok(()) => down.await,
            Err(error) => {
                // What the agent said before it went is still worth delivering.
                let _ = timeout(grace, down).await;
                Err(error)
            }
        },
    }
}

/// To wait with (`ready`) until a peer has closed its side or broke off, when what it sent before is left unread: reading would not
/// show the end before all of that. Tokio wakes a waiter for `PRIORITY` by that end as well, and sockets that are registered for
/// reading and writing, as all of its own are, tell of nothing else under this name.
pub(crate) const PEER_CLOSED: Interest = Interest::PRIORITY;

/// Small frames go at once, and a peer that vanished without a word is noticed after four minutes, which is longer than any drop of
/// the network a shim lives through. Best effort: a connection without these options works.
pub(crate) fn tune(stream: &TcpStream) {
    let kept = stream
        .set_nodelay(true)
        .and_then(|()| Ok(setsockopt(stream, sockopt::KeepAlive, &true)?))
        .and_then(|()| Ok(setsockopt(stream, sockopt::TcpKeepIdle, &60)?))
        .and_then(|()| Ok(setsockopt(stream, sockopt::TcpKeepInterval, &15)?))
        .and_then(|()| Ok(setsockopt(stream, sockopt::TcpKeepCount, &12)?));
    if let Err(error) = kept {
        tracing::debug!(%error, "cannot set keep-alive");
    }
}

/// A peer that vanished is noticed after half a minute on this connection, which carries nothing: its loss is only something to know.
pub(crate) fn notice_silence(stream: &TcpStream) {
    let set = setsockopt(stream, sockopt::TcpKeepIdle, &15)
        .and_then(|()| setsockopt(stream, sockopt::TcpKeepInterval, &5))
        .and_then(|()| setsockopt(stream, sockopt::TcpKeepCount, &3));
    if let Err(error) = set {
        tracing::debug!(%error, "cannot set keep-alive");
    }
}

/// How much is read at once at most, and forwarded at once.
const PIECE: usize = 64 * 1024;
/// How much a kernel may keep for an agent that does not read; it doubles the number, for what it keeps beside the bytes.
const AGENT_HOLDS: usize = 64 * 1024;
/// How much it may keep at either end of a connection to a stock peer, where no session's window bounds what is under way.
const PLAIN_HOLDS: usize = 256 * 1024;

/// Bounds what is sent and not read on the way to the agent: a call waits behind it. Best effort.
pub(crate) fn bound_agent(stream: &UnixStream) {
    told(setsockopt(stream, sockopt::SndBuf, &AGENT_HOLDS));
}

/// Bounds what is under way on a connection without a session, both ways. Best effort.
pub(crate) fn bound_plain(stream: &TcpStream) {
    let sending = setsockopt(stream, sockopt::SndBuf, &PLAIN_HOLDS);
    told(sending.and_then(|()| setsockopt(stream, sockopt::RcvBuf, &PLAIN_HOLDS)));
}

fn told(set: nix::Result<()>) {
    if let Err(error) = set {
        tracing::debug!(%error, "cannot bound a socket's buffer");
    }
}

/// Forwards bytes until their end, which is passed on. No memory is held while nothing is under way.
pub(crate) async fn pump<R, W>(mut from: R, mut to: W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut read = Filled::default();
    while poll_fn(|cx| read.poll_fill(Pin::new(&mut from), cx)).await? > 0 {
        to.write_all_buf(&mut read.bytes).await?;
        to.flush().await?;
    }
    to.shutdown().await
}

/// What was read from a peer and not yet used.
#[derive(Default)]
pub(crate) struct Filled {
    pub(crate) bytes: BytesMut,
    /// What came behind them: a socket tells its error once.
    error: Option<io::Error>,
}

impl Filled {
    /// Reads what is there, up to a piece, behind what there is; zero at the end.
    pub(crate) fn poll_fill<R: AsyncRead>(
        &mut self,
        mut from: Pin<&mut R>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Err(error));
        }
        // On the stack: a connection that is silent holds no buffer.
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
        let mut scratch = [MaybeUninit::uninit(); PIECE];
        let mut read = ReadBuf::uninit(&mut scratch);
        // TLS gives a record at a time.
        loop {
            let before = read.filled().len();
            let ended = match from.as_mut().poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) => read.filled().len() == before || read.remaining() == 0,
                Poll::Ready(Err(error)) if before == 0 => return Poll::Ready(Err(error)),
                Poll::Pending if before == 0 => return Poll::Pending,
                Poll::Ready(Err(error)) => {
                    self.error = Some(error);
                    true
                }
                Poll::Pending => true,
            };
            if ended {
                self.bytes.extend_from_slice(read.filled());
                return Poll::Ready(Ok(read.filled().len()));
            }
        }
    }
}

/// One more, as long as it lives.
pub(crate) struct Held<'a>(&'a AtomicUsize);

impl<'a> Held<'a> {
    pub(crate) fn one_of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    /// A peer that says something and is gone: its socket tells the error once, and nothing but its end after that.
    struct Reset {
        words: Option<&'static [u8]>,
        told: bool,
    }

    impl AsyncRead for Reset {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            to: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(words) = self.words.take() {
                to.put_slice(words);
            } else if !std::mem::replace(&mut self.told, true) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn answers_go_on_after_the_caller_has_said_all() {
        let slow = async {
            tokio::time::sleep(4 * SHORT).await;
            Ok::<(), ()>(())
        };
        let started = tokio::time::Instant::now();
        both_with(SHORT, async { Ok(()) }, slow).await.unwrap();
        assert!(started.elapsed() >= 4 * SHORT);
    }

    #[tokio::test]
    async fn an_error_behind_bytes_is_told_after_them_although_the_socket_tells_it_once() {
        let mut to = Vec::new();
        let ended = pump(Reset { words: Some(b"last words"), told: false }, &mut to).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(to, b"last words");
    }

    #[tokio::test]
    async fn the_callers_side_ends_soon_after_the_agents() {
        let started = tokio::time::Instant::now();
        both_with(SHORT, std::future::pending::<Result<(), ()>>(), async { Ok(()) }).await.unwrap();
        assert!(started.elapsed() >= SHORT);
    }

    #[tokio::test]
    async fn an_error_towards_the_agent_is_told_after_its_last_words() {
        let told =
            both_with(SHORT, async { Err("broken") }, std::future::pending::<Result<(), &str>>()).await;
        assert_eq!(told, Err("broken"));
    }
}
