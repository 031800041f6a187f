//! How a property takes its parts from an input: numbers and pieces from the front, readers that give a stream in pieces, futures that must not
//! wait.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

/// An input, taken from its front. Beyond its end there are zeros.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// Two bytes as a number.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// At most so many bytes.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(count).unwrap_or((self.0, &[]));
        self.0 = rest;
        taken
    }

    /// Piece sizes, as many as the first byte says, up to seven.
    pub fn sizes(&mut self) -> Vec<usize> {
        let count = usize::from(self.byte() % 8);
        (0..count).map(|_| usize::from(self.byte()) + 1).collect()
    }

    /// All that is left.
    #[must_use]
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// All that is left, as text.
    #[must_use]
    pub fn text(self) -> String {
        String::from_utf8_lossy(self.0).into_owned()
    }
}

/// What one of two sides says at a position of its stream, at most 64 KiB of it: the same there always, another at every other position
/// for a long way.
pub fn said_at(side: usize, at: u64, count: usize) -> &'static [u8] {
    const PERIOD: usize = 65_521;
    static SAID: OnceLock<Vec<u8>> = OnceLock::new();
    let said = SAID.get_or_init(|| {
        let mut rng = fastrand::Rng::with_seed(1);
        let once: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(PERIOD).collect();
        once.repeat(3)
    });
    let at = usize::try_from(at).unwrap() % PERIOD + side * 31_337 % PERIOD;
    &said[at..at + count.min(PERIOD)]
}

/// A stream that comes in pieces of given sizes, again and again; in one piece when there are none. What is written to it is kept.
#[derive(Debug)]
pub struct Pieces<'a> {
    left: &'a [u8],
    sizes: VecDeque<usize>,
    /// What was written.
    pub written: Vec<u8>,
}

impl<'a> Pieces<'a> {
    /// `bytes` in pieces of `sizes`.
    #[must_use]
    pub fn new(bytes: &'a [u8], sizes: &[usize]) -> Self {
        Self { left: bytes, sizes: sizes.iter().copied().collect(), written: Vec::new() }
    }
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let size = self.sizes.front().copied().unwrap_or(usize::MAX);
        if !self.sizes.is_empty() {
            self.sizes.rotate_left(1);
        }
        let (piece, rest) = self.left.split_at(size.min(to.remaining()).min(self.left.len()));
        to.put_slice(piece);
        self.left = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A future's value; it must have nothing to wait for.
///
/// # Panics
/// When it waits.
pub fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits although everything is there"),
    }
}

/// A future's value on a runtime of this thread without I/O, whose clock stands still until there is nothing else to do.
pub fn in_virtual_time<F: Future>(future: F) -> F::Output {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// The same with I/O and the real time.
pub fn in_real_time<F: Future>(future: F) -> F::Output {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}
