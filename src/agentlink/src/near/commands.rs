//! The daemon's side of a link process: what its requests do.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use peerpods_podvm::SandboxId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::peers::Peers;
use crate::control::{Answer, Asked, Body, GuestState, Lines, Refusal, Request, SPOKEN, Status, to_line};
use crate::dial::{self, DialError, Guest, Target, TargetError};
use crate::link::{Connected, LinkTarget};
use crate::relay;

/// What all tasks of a link process share.
pub(super) struct State {
    pub(super) sandbox: SandboxId,
    /// The guest, once its agent has answered; connections of the shim wait for it.
    pub(super) guest: watch::Sender<Option<Arc<Target>>>,
    /// Connections of the shim that are open.
    pub(super) shims: AtomicUsize,
    /// Those of them that a session carries over a connection that works.
    pub(super) carried: AtomicUsize,
    /// Who made them.
    pub(super) peers: Peers,
    /// Cancelled by `close`.
    pub(super) closing: CancellationToken,
    established: Mutex<Option<Established>>,
}

/// The connection on which the agent answered. It stays open and silent, so that a guest that is lost is known to be.
struct Established {
    target: Arc<Target>,
    connected: Connected,
    watching: JoinHandle<()>,
}

impl Drop for Established {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl State {
    pub(super) fn new(sandbox: SandboxId) -> Self {
        Self {
            sandbox,
            guest: watch::Sender::new(None),
            shims: AtomicUsize::new(0),
            carried: AtomicUsize::new(0),
            peers: Peers::default(),
            closing: CancellationToken::new(),
            established: Mutex::new(None),
        }
    }

    fn status(&self) -> Status {
        let established = self.established.lock().unwrap_or_else(PoisonError::into_inner);
        let guest = match &*established {
            None => GuestState::Unknown,
            Some(known) if known.watching.is_finished() && !self.is_carried() => GuestState::Lost,
            Some(_) => GuestState::Connected,
        };
        Status {
            sandbox: self.sandbox.to_string(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            guest,
            shims: self.shims.load(Ordering::Relaxed),
            shim: self.peers.state(),
            speaks: SPOKEN,
        }
    }

    /// A session has a connection: the guest answers its pings.
    fn is_carried(&self) -> bool {
        self.carried.load(Ordering::Relaxed) > 0
    }

    /// What is asked for, with what is known of the guest already.
    fn target(&self, asked: &LinkTarget) -> Result<Target, TargetError> {
        let target = Target::new(asked)?;
        let established = self.established.lock().unwrap_or_else(PoisonError::into_inner);
        let known = established.as_ref().map(|known| known.target.recognised(asked, &target)).transpose()?;
        Ok(known.flatten().unwrap_or(target))
    }

    /// The earlier answer, when the same guest still holds the line. A new client certificate is taken over.
    fn still_connected(&self, target: &Arc<Target>) -> Option<Connected> {
        let mut established = self.established.lock().unwrap_or_else(PoisonError::into_inner);
        let known = established.as_mut()?;
        if known.watching.is_finished() || !known.target.same_guest(target) {
            return None;
        }
        known.target = target.clone();
        self.guest.send_replace(Some(target.clone()));
        Some(known.connected.clone())
    }

    fn establish(&self, target: Arc<Target>, connected: Connected, line: Guest) {
        let watching = tokio::spawn(watch_line(line));
        self.guest.send_replace(Some(target.clone()));
        let established = Established { target, connected, watching };
        *self.established.lock().unwrap_or_else(PoisonError::into_inner) = Some(established);
    }
}

async fn watch_line(mut line: Guest) {
    relay::notice_silence(line.get_ref().0);
    let mut scrap = [0; 64];
    while line.read(&mut scrap).await.is_ok_and(|read| read > 0) {}
    tracing::warn!("the guest closed the connection its agent had answered on");
}

/// Serves one control connection to its end.
pub(super) async fn serve(state: Arc<State>, stream: UnixStream) {
    if let Err(error) = converse(&state, stream).await {
        tracing::warn!(%error, "a control connection was closed");
    }
}

async fn converse(state: &Arc<State>, stream: UnixStream) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("the peer's uid is {peer}")));
    }
    let (read, mut write) = stream.into_split();
    let mut lines = Lines::new(read);
    loop {
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            Err(error) => {
                let _ = answer(&mut write, SPOKEN.oldest, Body::Error { message: error.to_string() }).await;
                return Err(error);
            }
        };
        let Asked { v, request } = Asked::parse(&line);
        drop(line);
        match request {
            Ok(Request::Status) => answer(&mut write, v, Body::Status(state.status())).await?,
            Ok(Request::Close) => {
                answer(&mut write, v, Body::Closing).await?;
                state.closing.cancel();
            }
            Ok(Request::Connect(target)) => match connect(state, target, &mut lines).await? {
                Some(body) => answer(&mut write, v, body).await?,
                None => return Ok(()),
            },
            Err(Refusal::Unsupported) => answer(&mut write, v, Body::Unsupported { speaks: SPOKEN }).await?,
            Err(Refusal::Fault(message)) => answer(&mut write, v, Body::Error { message }).await?,
        }
    }
}

/// Dials; none when the caller hung up meanwhile.
async fn connect(
    state: &State,
    asked: Box<LinkTarget>,
    caller: &mut Lines<OwnedReadHalf>,
) -> io::Result<Option<Body>> {
    let target = match state.target(&asked) {
        Ok(target) => Arc::new(target),
        Err(error) => return Ok(Some(Body::Error { message: error.to_string() })),
    };
    if let Some(connected) = state.still_connected(&target) {
        return Ok(Some(Body::Connected(connected)));
    }
    tracing::info!(address = %target.address, name = asked.server_name, "dialling");
    let deadline = asked.deadline;
    // With its keys and the token, of which the target keeps what it needs for as long as it needs it.
    drop(asked);
    let outcome = tokio::select! {
        outcome = dial::until_agent_answers(&target, deadline) => outcome,
        ended = caller.hung_up() => {
            tracing::info!(address = %target.address, "the caller hung up; dialling stopped");
            return ended.map(|()| None);
        }
    };
    Ok(Some(concluded(state, target, deadline, outcome)))
}

fn concluded(
    state: &State,
    target: Arc<Target>,
    deadline: Duration,
    outcome: Result<(Connected, Guest), DialError>,
) -> Body {
    let address = target.address;
    match outcome {
        Ok((connected, line)) => {
            tracing::info!(%address, after = ?connected.agent_after, attempts = connected.attempts, "connected");
            state.establish(target, connected.clone(), line);
            Body::Connected(connected)
        }
        Err(DialError::Deadline(last)) => {
            tracing::warn!(%address, after = ?deadline, last, "the agent did not answer in time");
            Body::Deadline { address, after: deadline, last }
        }
        Err(DialError::Untrusted(reason)) => {
            tracing::warn!(%address, reason, "the guest was not accepted");
            Body::Untrusted { address, reason }
        }
    }
}

async fn answer(to: &mut OwnedWriteHalf, v: u32, body: Body) -> io::Result<()> {
    to.write_all(&to_line(&Answer { v, body })?).await
}
