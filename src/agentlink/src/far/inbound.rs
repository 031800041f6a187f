//! What comes from the shim: a buffer that is read into before the agent is there, and forwarded frame by frame after.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio_rustls::server::TlsStream;

use super::ForwardError;
use super::frames::ToAgent;
use crate::ahead::ReadAhead;
use crate::relay::{self, Filled};

/// How much is taken from a caller while the agent comes up; more stays in the kernel's buffers.
const HOLD: usize = 64 * 1024;

/// The shim's side of a connection, with what was read and not yet forwarded.
pub(super) struct Inbound<R> {
    reader: R,
    read: Filled,
}

impl Inbound<TlsStream<ReadAhead>> {
    /// Ends when the peer closes. Reads on meanwhile, keeping what comes, up to a bound; beyond it the end of the TCP connection is
    /// noticed, unless the kernel's buffers are full too.
    ///
    /// # Cancel safety
    /// Nothing that was read is lost.
    pub(super) async fn gone(&mut self) -> io::Result<()> {
        while self.read.bytes.len() < HOLD {
            if self.fill().await? == 0 {
                return Ok(());
            }
        }
        self.reader.get_ref().0.ready(relay::PEER_CLOSED).await.map(drop)
    }

    /// The same with the way back split off.
    pub(super) fn split(self) -> (Inbound<ReadHalf<TlsStream<ReadAhead>>>, WriteHalf<TlsStream<ReadAhead>>) {
        let (reader, back) = tokio::io::split(self.reader);
        (Inbound { reader, read: self.read }, back)
    }
}

impl<R: AsyncRead + Unpin> Inbound<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, read: Filled::default() }
    }

    /// Waits for the first byte; true when the peer closed without one.
    pub(super) async fn is_over(&mut self) -> io::Result<bool> {
        Ok(self.fill().await? == 0)
    }

    /// Forwards frames until the peer closes, then closes the agent's side for writing.
    pub(super) async fn forward<W: AsyncWrite + Unpin>(
        mut self,
        to: W,
        netns: &str,
    ) -> Result<(), ForwardError> {
        let mut to = ToAgent::new(to, netns);
        loop {
            to.write_all_buf(&mut self.read.bytes).await?;
            to.flush().await?;
            if self.fill().await? == 0 {
                return Ok(to.shutdown().await?);
            }
        }
    }

    /// Reads what is there; zero at the end.
    async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.read.poll_fill(Pin::new(&mut self.reader), cx)).await
    }
}
