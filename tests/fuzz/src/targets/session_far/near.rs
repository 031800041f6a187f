//! A model of the near end and of both programs behind the link, with all the connections it ever dialled.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use peerpods_agentlink::fuzzing::{End, FarEnd, hello, welcome};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Agent, Far};
use crate::input::said_at;

/// How a connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Both ends learn of it, and what is under way is gone.
    Closed,
    /// The near end gives it up; what it has sent may arrive later.
    Stalled,
}

/// A connection the near end has dialled.
struct Connection {
    stream: DuplexStream,
    /// Not given to the network yet.
    out: BytesMut,
    /// Read and not understood.
    read: BytesMut,
    welcomed: bool,
    /// The agent a new session would be given.
    agent: Arc<Mutex<Option<Agent>>>,
}

/// The world as the near end sees it.
pub(super) struct Near {
    far: Far,
    stop: CancellationToken,
    served: Vec<JoinHandle<Result<(), String>>>,
    end: End,
    id: [u8; 16],
    turn: u32,
    current: Option<Connection>,
    stalled: Vec<Connection>,
    agent: Option<Agent>,
    /// What either side says in all.
    most: u64,
    shim_said: u64,
    agent_got: u64,
    agent_said: u64,
    shim_got: u64,
    shim_got_end: bool,
    agent_got_end: bool,
}

/// Lets everything run that can.
pub(super) async fn turns(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// Writes what fits; none when the stream is broken.
async fn write_some(stream: &mut DuplexStream, bytes: &[u8]) -> Option<usize> {
    poll_fn(|cx| match Pin::new(&mut *stream).poll_write(cx, bytes) {
        Poll::Ready(written) => Poll::Ready(written.ok()),
        Poll::Pending => Poll::Ready(Some(0)),
    })
    .await
}

/// Reads what is there; none at the end.
async fn read_some(stream: &mut DuplexStream, most: usize) -> Option<Vec<u8>> {
    let mut space = [0; 8192];
    let most = most.clamp(1, space.len());
    poll_fn(|cx| {
        let mut buffer = ReadBuf::new(&mut space[..most]);
        match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Poll::Ready(Some(Vec::new())),
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => Poll::Ready(Some(buffer.filled().to_vec())),
            Poll::Ready(_) => Poll::Ready(None),
        }
    })
    .await
}

impl Near {
    pub(super) fn new(most: u64) -> Self {
        Self {
            most,
            far: Arc::new(FarEnd::new(Duration::from_secs(1 << 20), 1 << 10)),
            stop: CancellationToken::new(),
            served: Vec::new(),
            end: End::default(),
            id: [0; 16],
            turn: 0,
            current: None,
            stalled: Vec::new(),
            agent: None,
            shim_said: 0,
            agent_got: 0,
            agent_said: 0,
            shim_got: 0,
            shim_got_end: false,
            agent_got_end: false,
        }
    }

    /// Gives up what there is and dials anew. The greeting is written, not sent.
    pub(super) fn dial(&mut self) {
        self.lose(Broken::Closed);
        let (stream, fars) = duplex(64 * 1024);
        let agent: Arc<Mutex<Option<Agent>>> = Arc::default();
        let (far, stop, given) = (self.far.clone(), self.stop.clone(), agent.clone());
        self.served.push(tokio::spawn(async move {
            let make = || {
                let (sessions, agents) = duplex(16 * 1024);
                *given.lock().unwrap() = Some(agents);
                sessions
            };
            far.serve(fars, make, &stop).await
        }));
        self.turn += 1;
        let mut out = BytesMut::new();
        hello(self.id, self.turn, self.end.received().0, &mut out);
        self.current = Some(Connection { stream, out, read: BytesMut::new(), welcomed: false, agent });
    }

    pub(super) fn lose(&mut self, how: Broken) {
        let lost = self.current.take();
        if how == Broken::Stalled {
            self.stalled.extend(lost);
        }
    }

    /// What lies about on an old connection arrives, in whole or in part.
    pub(super) async fn wake_old(&mut self, which: usize) {
        if self.stalled.is_empty() {
            return;
        }
        let mut old = self.stalled.swap_remove(which % self.stalled.len());
        let part = old.out.len().min(if which & 1 == 0 { which } else { usize::MAX });
        if let Some(written) = write_some(&mut old.stream, old.out.get(..part).unwrap_or_default()).await {
            old.out.advance(written);
            if which & 2 == 0 {
                self.stalled.push(old);
            }
        }
    }

    fn room(&self, said: u64) -> usize {
        usize::try_from(self.most.saturating_sub(said)).unwrap()
    }

    pub(super) fn shim_says(&mut self, count: usize) {
        let count = self.room(self.shim_said).min(count);
        self.shim_said += self.end.say(said_at(0, self.shim_said, count)) as u64;
    }

    pub(super) async fn agent_says(&mut self, count: usize) {
        let count = self.room(self.agent_said).min(count);
        let Some(agent) = &mut self.agent else { return };
        let bytes = said_at(1, self.agent_said, count);
        self.agent_said += write_some(agent, bytes).await.expect("the agent's stream broke") as u64;
    }

    pub(super) async fn agent_reads(&mut self, count: usize) {
        let Some(agent) = &mut self.agent else { return };
        match read_some(agent, count).await {
            Some(bytes) => {
                assert!(bytes == said_at(0, self.agent_got, bytes.len()), "the agent got other bytes");
                self.agent_got += bytes.len() as u64;
            }
            None => self.agent_got_end = true,
        }
    }

    pub(super) fn ask(&mut self) {
        self.end.ping();
        self.end.ack_now();
    }

    /// Sends at most so much of what there is to send.
    pub(super) async fn send(&mut self, count: usize) {
        let Some(current) = &mut self.current else { return };
        if current.welcomed && current.out.len() < 64 * 1024 {
            self.end.emit(&mut current.out);
        }
        let part = current.out.get(..count).unwrap_or(&current.out);
        if !part.is_empty() {
            match write_some(&mut current.stream, part).await {
                Some(written) => current.out.advance(written),
                None => self.lose(Broken::Closed),
            }
        }
    }

    /// Receives at most so much, understands it, and hands it on to the shim.
    pub(super) async fn receive(&mut self, count: usize) {
        let Some(current) = &mut self.current else { return };
        let Some(bytes) = read_some(&mut current.stream, count).await else { return self.lose(Broken::Closed) };
        current.read.extend_from_slice(&bytes);
        if !current.welcomed {
            let Some((id, received)) = welcome(&mut current.read) else { return };
            assert!(self.id == [0; 16] || self.id == id, "another session answers");
            if self.id == [0; 16] {
                self.agent = current.agent.lock().unwrap().take();
                assert!(self.agent.is_some(), "a session without an agent");
            }
            self.id = id;
            current.welcomed = true;
            assert_eq!(self.end.begin(received), Ok(()), "the WELCOME cannot be");
        }
        let bytes = current.read.split();
        let heard = self.end.hear(&bytes);
        self.hand_on(count);
        match heard.expect("the far end broke the protocol") {
            None => {}
            Some(reason) => {
                assert!(reason.is_empty() && self.shim_got_end, "the far end ended the session: {reason:?}");
                self.lose(Broken::Closed);
            }
        }
    }

    fn hand_on(&mut self, count: usize) {
        let mut bytes = Vec::new();
        self.shim_got_end |= self.end.hand_on(count, &mut bytes);
        for part in bytes.chunks(1 << 14) {
            assert!(part == said_at(1, self.shim_got, part.len()), "the shim got other bytes");
            self.shim_got += part.len() as u64;
        }
    }

    pub(super) fn check(&self) {
        assert!(self.agent_got <= self.shim_said && self.shim_got <= self.agent_said);
        assert!(!self.agent_got_end && !self.shim_got_end, "a session ended by itself");
    }

    /// No more trouble: everything arrives, and then the ends.
    pub(super) async fn settle(mut self) {
        let mut finished = false;
        for _ in 0..2000 {
            if self.current.is_none() && !(self.shim_got_end && self.end.is_confirmed()) {
                self.dial();
            }
            self.ask();
            self.send(usize::MAX).await;
            turns(3).await;
            for _ in 0..4 {
                self.receive(usize::MAX).await;
                self.agent_reads(usize::MAX).await;
            }
            if let Some(agent) = self.agent.as_mut().filter(|_| !finished) {
                self.end.finish();
                agent.shutdown().await.unwrap();
                finished = true;
            }
            if self.agent_got_end && self.shim_got_end && self.end.is_confirmed() {
                break;
            }
        }
        assert_eq!((self.agent_got, self.shim_got), (self.shim_said, self.agent_said), "not everything arrived");
        assert!(self.agent_got_end && self.shim_got_end && self.end.is_confirmed(), "the session does not end");
        self.send(usize::MAX).await;
        self.current = None;
        self.stalled.clear();
        self.stop.cancel();
        for served in self.served {
            if let Err(error) = served.await.unwrap() {
                // A connection that never greeted, or was cut off while it did.
                assert!(!error.contains("protocol"), "{error}");
            }
        }
    }
}
