//! What of the shim's bytes goes to the agent as it is, and what is held and rewritten ([`crate::rewrite`]). Bytes pass without being
//! copied, many small frames at once; only a frame's undecided beginning, and a request that is rewritten, are held.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::ForwardError;
use crate::frame::{FrameError, HEADER_LEN, Header, Kind, MAX_PAYLOAD};
use crate::rewrite::{self, Verdict};

/// A frame is decided by its header and so much of its payload.
const UNDECIDED: usize = HEADER_LEN + 600;

/// The longest payload that is forwarded. Peers accept 4 MiB, and answer a longer message with an error of its call, on a connection that
/// goes on; what claims to be much longer is none.
pub(super) const FORWARDED: usize = 4 * MAX_PAYLOAD;

/// Where the stream of frames is. Pure.
struct Frames {
    netns: String,
    /// So much of the present frame is still to pass.
    left: usize,
    /// The beginning of a frame that is not decided, or that is held.
    held: Vec<u8>,
}

/// What is to be done with bytes that came.
#[derive(Debug, PartialEq, Eq)]
enum Offer {
    /// So many from their beginning may go as they are; [`Frames::passed`] is to be told how many went.
    Pass(usize),
    /// So many were taken, and this is to go now.
    Taken(usize, Bytes),
}

impl Frames {
    /// Decides on `bytes`, which are not empty.
    fn offer(&mut self, bytes: &[u8]) -> Result<Offer, FrameError> {
        if self.held.is_empty() {
            let at = self.passable(bytes)?;
            if at > 0 {
                return Ok(Offer::Pass(at));
            }
        }
        self.hold(bytes)
    }

    /// How many bytes from the beginning are of frames that pass. A fault behind good frames is found when those have gone.
    fn passable(&self, bytes: &[u8]) -> Result<usize, FrameError> {
        let mut at = self.left;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match decide(rest) {
                Ok((Verdict::Pass, total)) => at += total,
                Ok(_) => break,
                Err(error) if at == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(at.min(bytes.len()))
    }

    /// So many of `bytes`, which [`Frames::offer`] let pass, have gone.
    fn passed(&mut self, bytes: &[u8], went: usize) {
        let mut end = self.left;
        while end < went {
            let header = bytes.get(end..).and_then(|rest| rest.first_chunk::<HEADER_LEN>());
            let Some(Ok(header)) = header.map(|header| Header::parse_within(header, FORWARDED)) else {
                return;
            };
            end += HEADER_LEN + header.payload_len();
        }
        self.left = end - went;
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<Offer, FrameError> {
        let wanted = match self.held.first_chunk::<HEADER_LEN>() {
            None => HEADER_LEN,
            Some(header) => {
                let total = HEADER_LEN + Header::parse_within(header, FORWARDED)?.payload_len();
                match decide(&self.held)?.0 {
                    Verdict::More => total.min(UNDECIDED),
                    Verdict::Hold | Verdict::Pass => total,
                }
            }
        };
        let room = wanted.saturating_sub(self.held.len());
        let part = bytes.get(..room).unwrap_or(bytes);
        self.held.extend_from_slice(part);
        Ok(Offer::Taken(part.len(), self.release()?))
    }

    /// What of the held frame can go by now.
    fn release(&mut self) -> Result<Bytes, FrameError> {
        let Some(header) = self.held.first_chunk::<HEADER_LEN>() else { return Ok(Bytes::new()) };
        let header = Header::parse_within(header, FORWARDED)?;
        let (verdict, total) = decide(&self.held)?;
        match verdict {
            Verdict::More => return Ok(Bytes::new()),
            Verdict::Hold if self.held.len() < total => return Ok(Bytes::new()),
            Verdict::Pass => self.left = total - self.held.len(),
            Verdict::Hold => {
                let payload = self.held.get(HEADER_LEN..).unwrap_or_default();
                if let Some(changed) = rewrite::rewrite(payload, &self.netns) {
                    // A frame that was just below the limit may pass it now; the agent answers that itself, and the connection lives.
                    let length = u32::try_from(changed.len()).unwrap_or(u32::MAX);
                    self.held = Header { length, ..header }.emit().to_vec();
                    self.held.extend_from_slice(&changed);
                } else {
                    tracing::debug!(
                        stream = header.stream,
                        "a request looked like ours to change and was not"
                    );
                }
            }
        }
        Ok(std::mem::take(&mut self.held).into())
    }

    /// True between two frames.
    fn is_whole(&self) -> bool {
        self.left == 0 && self.held.is_empty()
    }
}

/// What is to be done with the frame that begins here, and how long it is.
fn decide(bytes: &[u8]) -> Result<(Verdict, usize), FrameError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Ok((Verdict::More, HEADER_LEN));
    };
    let header = Header::parse_within(header, FORWARDED)?;
    let length = header.payload_len();
    let verdict = match header.kind {
        // Not held: the agent will not take it.
        Kind::Request if length > MAX_PAYLOAD => Verdict::Pass,
        Kind::Request => rewrite::inspect(rest.get(..length).unwrap_or(rest), length),
        Kind::Response | Kind::Data => Verdict::Pass,
    };
    Ok((verdict, HEADER_LEN + length))
}

/// The way to the agent: takes the shim's bytes as they come.
pub(super) struct ToAgent<W> {
    pub(super) agent: W,
    frames: Frames,
    /// To go before anything else.
    first: Bytes,
}

impl<W: AsyncWrite + Unpin> ToAgent<W> {
    pub(super) fn new(agent: W, netns: &str) -> Self {
        let frames = Frames { netns: netns.to_owned(), left: 0, held: Vec::new() };
        Self { agent, frames, first: Bytes::new() }
    }

    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.first.has_remaining() {
            let went = ready!(Pin::new(&mut self.agent).poll_write(cx, &self.first))?;
            if went == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.first.advance(went);
        }
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for ToAgent<W> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_first(cx))?;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match this.frames.offer(bytes).map_err(ForwardError::from)? {
            Offer::Pass(part) => {
                let part = bytes.get(..part).unwrap_or(bytes);
                let went = ready!(Pin::new(&mut this.agent).poll_write(cx, part))?;
                this.frames.passed(bytes, went);
                Poll::Ready(Ok(went))
            }
            Offer::Taken(part, first) => {
                this.first = first;
                Poll::Ready(Ok(part))
            }
        }
    }

    /// Several parts go at once in the midst of a large frame.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let all: usize = parts.iter().map(|part| part.len()).sum();
        if this.first.has_remaining() || all > this.frames.left {
            let first = parts.iter().find(|part| !part.is_empty());
            return Pin::new(this).poll_write(cx, first.map_or(&[], |part| part));
        }
        let went = ready!(Pin::new(&mut this.agent).poll_write_vectored(cx, parts))?;
        this.frames.left -= went;
        Poll::Ready(Ok(went))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_first(cx))?;
        Pin::new(&mut this.agent).poll_flush(cx)
    }

    /// An end inside a frame is an error.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_first(cx))?;
        if !this.frames.is_whole() {
            return Poll::Ready(Err(ForwardError::Truncated.into()));
        }
        Pin::new(&mut this.agent).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
