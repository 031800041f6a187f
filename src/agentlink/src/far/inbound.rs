//! What comes from the shim: a buffer that is read into before the agent is there, and forwarded frame by frame after.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::ForwardError;
use crate::frame::{HEADER_LEN, Header, Kind};
use crate::relay;
use crate::rewrite::{self, Verdict};

/// How much is read at once; a TLS record holds as much.
const CHUNK: usize = 16 * 1024;
/// How much is taken from a caller while the agent comes up; more stays in the kernel's buffers.
const HOLD: usize = 64 * 1024;

/// The shim's side of a connection, with what was read and not yet forwarded.
pub(super) struct Inbound<R> {
    reader: R,
    read: BytesMut,
}

/// How the end of a peer shows while nothing is read from it.
pub(super) trait Departs {
    /// Ends when the peer is gone.
    fn departed(&self) -> impl Future<Output = io::Result<()>> + Send;
}

impl Departs for TlsStream<TcpStream> {
    async fn departed(&self) -> io::Result<()> {
        self.get_ref().0.ready(relay::PEER_CLOSED).await.map(drop)
    }
}

impl Departs for DuplexStream {
    /// Never: whoever lives a session ends what belongs to it.
    async fn departed(&self) -> io::Result<()> {
        std::future::pending().await
    }
}

impl<S: AsyncRead + AsyncWrite + Departs + Unpin> Inbound<S> {
    /// Ends when the peer closes. Reads on meanwhile, keeping what comes, up to a bound; beyond it the end of the TCP connection is
    /// noticed, unless the kernel's buffers are full too.
    ///
    /// # Cancel safety
    /// Nothing that was read is lost.
    pub(super) async fn gone(&mut self) -> io::Result<()> {
        while self.read.len() < HOLD {
            if self.fill().await? == 0 {
                return Ok(());
            }
        }
        self.reader.departed().await
    }

    /// The same with the way back split off.
    pub(super) fn split(self) -> (Inbound<ReadHalf<S>>, WriteHalf<S>) {
        let (reader, back) = tokio::io::split(self.reader);
        (Inbound { reader, read: self.read }, back)
    }
}

impl<R: AsyncRead + Unpin> Inbound<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, read: BytesMut::new() }
    }

    /// Waits for the first byte; true when the peer closed without one.
    pub(super) async fn is_over(&mut self) -> io::Result<bool> {
        Ok(self.fill().await? == 0)
    }

    /// Forwards frames until the peer closes, then closes the agent's side for writing.
    pub(super) async fn forward<W: AsyncWrite + Unpin>(
        mut self,
        mut to: W,
        netns: &str,
    ) -> Result<(), ForwardError> {
        while let Some(header) = self.header().await? {
            match self.verdict(header).await? {
                Verdict::Hold => self.held(header, &mut to, netns).await?,
                Verdict::Pass | Verdict::More => self.stream(header, &mut to).await?,
            }
        }
        Ok(to.shutdown().await?)
    }

    /// The next frame's header, which stays in the buffer; none at the end.
    async fn header(&mut self) -> Result<Option<Header>, ForwardError> {
        loop {
            if let Some(bytes) = self.read.first_chunk::<HEADER_LEN>() {
                return Ok(Some(Header::parse(bytes)?));
            }
            if self.fill().await? == 0 {
                return if self.read.is_empty() { Ok(None) } else { Err(ForwardError::Truncated) };
            }
        }
    }

    async fn verdict(&mut self, header: Header) -> Result<Verdict, ForwardError> {
        if header.kind != Kind::Request {
            return Ok(Verdict::Pass);
        }
        loop {
            let payload = self.read.get(HEADER_LEN..).unwrap_or_default();
            let seen = payload.get(..header.payload_len()).unwrap_or(payload);
            match rewrite::inspect(seen, header.payload_len()) {
                Verdict::More => self.fill_or_truncated().await?,
                decided => return Ok(decided),
            }
        }
    }

    /// The frame as it is, a chunk at a time.
    async fn stream<W: AsyncWrite + Unpin>(
        &mut self,
        header: Header,
        to: &mut W,
    ) -> Result<(), ForwardError> {
        let mut left = HEADER_LEN + header.payload_len();
        while left > 0 {
            if self.read.is_empty() {
                self.fill_or_truncated().await?;
            }
            let part = self.read.len().min(left);
            to.write_all(self.read.get(..part).unwrap_or_default()).await?;
            self.read.advance(part);
            left -= part;
        }
        Ok(())
    }

    /// The frame whole, changed when [`rewrite::rewrite`] changes it.
    async fn held<W: AsyncWrite + Unpin>(
        &mut self,
        header: Header,
        to: &mut W,
        netns: &str,
    ) -> Result<(), ForwardError> {
        let whole = HEADER_LEN + header.payload_len();
        while self.read.len() < whole {
            self.fill_or_truncated().await?;
        }
        let payload = self.read.get(HEADER_LEN..whole).unwrap_or_default();
        let Some(changed) = rewrite::rewrite(payload, netns) else {
            tracing::debug!(stream = header.stream, "a request looked like ours to change and was not");
            return self.stream(header, to).await;
        };
        self.read.advance(whole);
        // Some megabytes were held for this frame: let them go.
        self.read = BytesMut::from(self.read.as_ref());
        // A frame that was just below the limit may pass it now; the agent answers that itself, and the connection lives.
        let length = u32::try_from(changed.len()).unwrap_or(u32::MAX);
        to.write_all(&Header { length, ..header }.emit()).await?;
        Ok(to.write_all(&changed).await?)
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.read.reserve(CHUNK);
        (&mut self.reader).take(CHUNK as u64).read_buf(&mut self.read).await
    }

    async fn fill_or_truncated(&mut self) -> Result<(), ForwardError> {
        if self.fill().await? == 0 { Err(ForwardError::Truncated) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        let mut bytes = Header { length, stream: 3, kind: Kind::Request, flags }.emit().to_vec();
        bytes[8] = kind;
        bytes.extend_from_slice(payload);
        bytes
    }

    async fn forwarded(bytes: &[u8]) -> (Vec<u8>, Result<(), ForwardError>) {
        let mut out = Vec::new();
        let ended = Inbound::new(bytes).forward(&mut out, "/n").await;
        (out, ended)
    }

    #[tokio::test]
    async fn streams_odd_flags_and_empty_frames_pass_unchanged() {
        let mut bytes = frame(3, 0xf7, b"data");
        bytes.extend(frame(1, 0x02, b""));
        bytes.extend(frame(2, 0x04, b"x"));
        bytes.extend(frame(1, 0, &[0xff; 30]));
        let (out, ended) = forwarded(&bytes).await;
        assert!(ended.is_ok());
        assert_eq!(out, bytes);
    }

    #[tokio::test]
    async fn an_end_inside_a_frame_is_an_error() {
        let bytes = frame(1, 0, b"\x0a\x11grpc.AgentService");
        for cut in [1, 9, 10, 15, bytes.len() - 1] {
            let (_, ended) = forwarded(&bytes[..cut]).await;
            assert!(matches!(ended, Err(ForwardError::Truncated)), "cut at {cut}: {ended:?}");
        }
    }

    #[tokio::test]
    async fn garbage_after_a_good_frame_is_an_error_and_the_good_frame_arrived() {
        let good = frame(3, 0, b"data");
        let mut bytes = good.clone();
        bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
        let (out, ended) = forwarded(&bytes).await;
        assert!(matches!(ended, Err(ForwardError::Frame(_))), "{ended:?}");
        assert_eq!(out, good);
    }
}
