//! The guest's end of the link: ends TLS, forwards frames to the agent's socket, rewrites two requests ([`crate::rewrite`]).
//!
//! ```text
//! TCP ─▶ handshake (bounded in number and time) ─▶ first byte ─▶ agent socket (dialled now, not before)
//!          shim → agent: frame by frame, streamed       agent → shim: bytes
//! ```
//!
//! A peer that offers a resumable session (`session.rs`) gets one: its bytes take the same way, and the agent's connection outlives
//! the peer's. A stock peer offers none.
//!
//! A guest that made its own key lets nobody in before somebody has admitted it (`admission.rs`).
//!
//! Each connection stands alone: one that breaks, or speaks no ttrpc, is closed and logged. No frame is held but the two kinds that are
//! rewritten. The agent is not started, supervised or asked anything here.

mod agent;
mod frames;
mod inbound;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use peerpods_podvm::token::GuestKey;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{self, Binding, Gate};
use crate::ahead::ReadAhead;
use crate::frame::FrameError;
use crate::relay;
use crate::session::far::{Limits, Sessions, live};
use crate::session::pulse::FAR_SILENCE;
use crate::session::{self, PROTOCOL};
use crate::tls::key_of;
use agent::Agent;
use inbound::Inbound;

/// How long a refused peer is listened to, so that it reads the alert before the reset.
const LINGER: Duration = Duration::from_secs(1);

/// What the guest's end needs.
#[derive(Clone)]
pub struct FarConfig {
    /// Certificate, key and whom to admit: [`crate::tls::far_server`].
    pub tls: Arc<ServerConfig>,
    /// By whom the guest has to be admitted first; none in the stock form.
    pub gate: Option<Arc<Gate>>,
    /// The agent's unix socket.
    pub agent_socket: PathBuf,
    /// The path every container's network namespace is set to.
    pub pod_netns: PathBuf,
    /// How long a caller's first byte waits for the agent to come up. Stock: 150 s.
    pub agent_patience: Duration,
    /// How long a peer may take for its TLS handshake.
    pub handshake_timeout: Duration,
    /// How many peers may be in their handshake at once; more wait in the listener's queue.
    pub max_handshakes: usize,
    /// How long a session that lost its connection waits for the next. Stock: 150 s, longer than a near end tries.
    pub session_patience: Duration,
    /// How many sessions may wait so; beyond it the one that has waited longest is closed. Each keeps up to about 1 MiB: 512 KiB
    /// a direction; and, rarely, a request that is being rewritten.
    pub max_detached_sessions: usize,
}

impl FarConfig {
    /// The usual patience and limits.
    #[must_use]
    pub fn new(tls: Arc<ServerConfig>, agent_socket: PathBuf, pod_netns: PathBuf) -> Self {
        Self {
            tls,
            gate: None,
            agent_socket,
            pod_netns,
            agent_patience: Duration::from_secs(150),
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 64,
            session_patience: Duration::from_secs(150),
            max_detached_sessions: 64,
        }
    }
}

/// Why a connection ended other than by its peers' will.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the connection ended inside a frame")]
    Truncated,
    #[error("the agent at {} did not come up within {after:?}: {last}", path.display())]
    Agent { path: PathBuf, after: Duration, last: io::Error },
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<ForwardError> for io::Error {
    fn from(error: ForwardError) -> Self {
        match error {
            ForwardError::Io(error) => error,
            other => Self::new(io::ErrorKind::InvalidData, other),
        }
    }
}

/// The guest's end of the link.
pub struct Far {
    inner: Arc<Inner>,
}

struct Inner {
    config: FarConfig,
    netns: String,
    acceptor: TlsAcceptor,
    sessions: Arc<Sessions<TlsStream<ReadAhead>>>,
}

impl Far {
    /// Nothing runs before [`Far::serve`].
    #[must_use]
    pub fn new(config: FarConfig) -> Self {
        let netns = config.pod_netns.to_string_lossy().into_owned();
        let acceptor = TlsAcceptor::from(config.tls.clone());
        let limits = Limits { patience: config.session_patience, detached: config.max_detached_sessions };
        Self { inner: Arc::new(Inner { config, netns, acceptor, sessions: Sessions::new(limits) }) }
    }

    /// Serves until `shutdown` is cancelled, then closes every connection and returns when all are gone. Errors of accepting (no more
    /// file descriptors) are waited out.
    ///
    /// # Cancel safety
    /// Dropping it stops accepting; connections under way are closed.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) {
        let handshakes = Arc::new(Semaphore::new(self.inner.config.max_handshakes));
        let connections = TaskTracker::new();
        let closing = shutdown.child_token();
        let _close_on_drop = closing.clone().drop_guard();
        let accepting = async {
            // The semaphore is never closed, so the loop ends by cancellation only.
            while let Ok(permit) = handshakes.clone().acquire_owned().await {
                let (tcp, peer) = accept(&listener).await;
                let inner = self.inner.clone();
                let closing = closing.clone();
                connections.spawn(async move {
                    Box::pin(inner.connection(tcp, peer, permit, &closing)).await;
                });
            }
        };
        let gate = self.inner.config.gate.clone();
        let tend_gate = async move {
            if let Some(gate) = gate {
                gate.expire().await;
            }
            std::future::pending::<()>().await;
        };
        let both = async { tokio::join!(accepting, tend_gate) };
        closing.run_until_cancelled(both).await;
        connections.close();
        connections.wait().await;
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; trying again");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Inner {
    async fn connection(
        &self,
        tcp: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
        closing: &CancellationToken,
    ) {
        relay::tune(&tcp);
        let entering = async { self.admitted(self.handshake(tcp, peer).await?, peer).await };
        let Some(Some(tls)) = closing.run_until_cancelled(entering).await else { return };
        drop(permit);
        tracing::debug!(%peer, "connected");
        if tls.get_ref().1.alpn_protocol() == Some(PROTOCOL) {
            return Box::pin(self.session(tls, peer, closing)).await;
        }
        match closing.run_until_cancelled(self.forward(tls)).await {
            Some(Err(error)) => tracing::warn!(%peer, %error, "connection closed"),
            Some(Ok(())) | None => tracing::debug!(%peer, "connection ended"),
        }
    }

    async fn handshake(&self, tcp: TcpStream, peer: SocketAddr) -> Option<TlsStream<ReadAhead>> {
        let handshake = self.acceptor.accept(ReadAhead::new(tcp)).into_fallible();
        match timeout(self.config.handshake_timeout, handshake).await {
            Ok(Ok(tls)) => return Some(tls),
            Ok(Err((error, tcp))) => {
                tracing::info!(%peer, %error, "TLS handshake failed");
                linger(tcp).await;
            }
            Err(_) => {
                tracing::info!(%peer, after = ?self.config.handshake_timeout, "TLS handshake took too long");
            }
        }
        None
    }

    /// The connection, when its peer may go on.
    async fn admitted(
        &self,
        mut tls: TlsStream<ReadAhead>,
        peer: SocketAddr,
    ) -> Option<TlsStream<ReadAhead>> {
        let Some(gate) = &self.config.gate else { return Some(tls) };
        if tls.get_ref().1.alpn_protocol() != Some(admission::PROTOCOL) {
            if link_of(&tls).is_ok_and(|link| gate.is_open(link)) {
                return Some(tls);
            }
            tracing::warn!(%peer, "this guest has not been admitted yet; a connection was closed");
            return None;
        }
        match timeout(self.config.handshake_timeout, claim(gate, &mut tls)).await {
            Ok(Ok(())) => {
                tracing::info!(%peer, "admitted by the token");
                return Some(tls);
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                tracing::error!(%peer, %error, "a claim was refused");
                linger(tls).await;
            }
            Ok(Err(error)) => tracing::info!(%peer, %error, "no claim was made"),
            Err(_) => {
                tracing::info!(%peer, after = ?self.config.handshake_timeout, "no claim was made in time")
            }
        }
        None
    }

    /// A connection for a session: a known one's task gets it, a new one lives here.
    async fn session(&self, tls: TlsStream<ReadAhead>, peer: SocketAddr, closing: &CancellationToken) {
        session::tune(tls.get_ref().0, FAR_SILENCE);
        let admitted = Box::pin(self.sessions.admit(tls, self.config.handshake_timeout));
        let (ticket, first) = match closing.run_until_cancelled(admitted).await {
            Some(Ok(Some(new))) => new,
            Some(Ok(None)) | None => return,
            Some(Err(error)) => return tracing::info!(%peer, %error, "no session was asked for"),
        };
        let config = &self.config;
        let agent = Agent::new(config.agent_socket.clone(), config.agent_patience, &self.netns, peer);
        match live(ticket, first, agent, closing).await {
            Ok(()) => tracing::debug!(%peer, "session ended"),
            Err(error) => tracing::warn!(%peer, %error, "session closed"),
        }
    }

    async fn forward(&self, peer: TlsStream<ReadAhead>) -> Result<(), ForwardError> {
        relay::bound_plain(peer.get_ref().0);
        let mut inbound = Inbound::new(peer);
        if inbound.is_over().await? {
            return Ok(());
        }
        let agent = tokio::select! {
            agent = agent::dial(&self.config.agent_socket, self.config.agent_patience) => agent?,
            gone = inbound.gone() => return Ok(gone?),
        };
        let (inbound, to_shim) = inbound.split();
        let (from_agent, to_agent) = agent.into_split();
        let down = async { Ok(relay::pump(from_agent, to_shim).await?) };
        relay::both(inbound.forward(to_agent, &self.netns), down).await
    }
}

/// The key a link shows.
fn link_of(tls: &TlsStream<ReadAhead>) -> io::Result<GuestKey> {
    let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let shown = shown.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    key_of(shown).map_err(io::Error::other)
}

async fn claim(gate: &Gate, tls: &mut TlsStream<ReadAhead>) -> io::Result<()> {
    let link = link_of(tls)?;
    let binding = Binding::of(tls.get_ref().1, gate.own(), link)?;
    gate.hear(tls, link, &binding).await
}

/// Closing with unread bytes resets the connection, which can overtake the alert that says why.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut peer: S) {
    let mut scrap = [0; 1024];
    let drain = async {
        peer.shutdown().await?;
        let mut left = 64;
        while left > 0 && peer.read(&mut scrap).await? > 0 {
            left -= 1;
        }
        Ok::<(), io::Error>(())
    };
    let _ = timeout(LINGER, drain).await;
}

/// The header of a frame as a connection that forwards it reads it, for `tests/fuzz`.
///
/// # Errors
/// What is no header, or of a payload that is not forwarded.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn forwarded_header(bytes: &[u8; crate::frame::HEADER_LEN]) -> Result<crate::frame::Header, FrameError> {
    crate::frame::Header::parse_within(bytes, frames::FORWARDED)
}

/// Forwards frames as a connection does, for `tests/fuzz`.
///
/// # Errors
/// Why the connection would have been closed.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub async fn forward_frames<R, W>(from: R, to: W, netns: &str) -> Result<(), String>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    Inbound::new(from).forward(to, netns).await.map_err(|error| error.to_string())
}
