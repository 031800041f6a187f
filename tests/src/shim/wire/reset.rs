//! Closing a connection with an answer unread, which is what a reset is on a unix socket.

use std::io;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use protobuf::Message;
use tokio::io::Interest;

use super::{Connection, Method, REQUEST, envelope, header, write_all};

/// What lies in a connection's socket when it is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// An answer: the connection is reset.
    Answer,
    /// Nothing: it is closed.
    Nothing,
}

impl Connection {
    /// Sends a request, lets its answer arrive, and reads nothing any more: who drops the connection now resets it. A unix socket is reset
    /// by closing it with something unread and by nothing else, so when no answer comes within `patience` this answers [`Unread::Nothing`]
    /// and dropping the connection is an ordinary close.
    pub async fn reset(&self, method: Method, request: &impl Message, patience: Duration) -> Unread {
        self.reader.abort();
        while !self.reader.is_finished() {
            tokio::task::yield_now().await;
        }
        let payload = request.write_to_bytes().unwrap_or_default();
        let request = envelope(method, payload, None, &self.metadata);
        let mut bytes = header(request.len(), self.next_stream(), REQUEST).to_vec();
        bytes.extend_from_slice(&request);
        if write_all(&self.stream, &bytes).await.is_err() {
            return Unread::Nothing;
        }
        match tokio::time::timeout(patience, self.unread()).await {
            Ok(true) => Unread::Answer,
            Ok(false) | Err(_) => Unread::Nothing,
        }
    }

    /// Waits for something to read, without reading it; false when that is the end.
    async fn unread(&self) -> bool {
        loop {
            if self.stream.readable().await.is_err() {
                return false;
            }
            let peeked = self.stream.try_io(Interest::READABLE, || {
                Ok(recv(self.stream.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK)?)
            });
            match peeked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                peeked => return matches!(peeked, Ok(1..)),
            }
        }
    }
}
