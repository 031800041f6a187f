//! A TCP connection under TLS that is read in large pieces: rustls asks for 4 KiB at a time, and each would be a system call.
//!
//! What was not asked for yet waits here, at most one piece, and no memory is held while nothing waits.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How much is read at once.
const PIECE: usize = 64 * 1024;

/// The connection. Its socket's options are reached by dereferencing; whoever reads must read from here.
pub(crate) struct ReadAhead {
    tcp: TcpStream,
    waiting: Vec<u8>,
    taken: usize,
}

impl ReadAhead {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self { tcp, waiting: Vec::new(), taken: 0 }
    }

    fn take(&mut self, into: &mut ReadBuf<'_>) {
        let rest = self.waiting.get(self.taken..).unwrap_or_default();
        let part = rest.get(..into.remaining()).unwrap_or(rest);
        into.put_slice(part);
        self.taken += part.len();
        if self.taken == self.waiting.len() {
            (self.waiting, self.taken) = (Vec::new(), 0);
        }
    }
}

impl Deref for ReadAhead {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.tcp
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.waiting.is_empty() {
            this.take(into);
            return Poll::Ready(Ok(()));
        }
        // On the stack: a connection on which little comes holds no buffer.
        let mut scratch = [MaybeUninit::uninit(); PIECE];
        let mut read = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(&mut this.tcp).poll_read(cx, &mut read))?;
        let read = read.filled();
        let (now, later) = read.split_at(read.len().min(into.remaining()));
        into.put_slice(now);
        if !later.is_empty() {
            this.waiting = later.to_vec();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn everything_is_read_once_whatever_is_asked_for_and_nothing_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut ahead = ReadAhead::new(listener.accept().await.unwrap().0);
        let said: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
        let saying = async {
            peer.write_all(&said).await.unwrap();
            drop(peer);
        };
        let hearing = async {
            let (mut heard, mut size) = (Vec::new(), 1);
            loop {
                let mut part = vec![0; size];
                let read = ahead.read(&mut part).await.unwrap();
                if read == 0 {
                    break heard;
                }
                heard.extend_from_slice(&part[..read]);
                size = 1 + size * 7 % 5000;
                assert!(ahead.waiting.len() <= PIECE);
            }
        };
        let ((), heard) = tokio::join!(saying, hearing);
        assert!(heard == said);
        assert_eq!(ahead.waiting.capacity(), 0);
    }
}
