//! Reaching the guest: a TCP port that may not be open yet, TLS, and the agent's answer.
//!
//! A guest that boots swallows connection attempts, and the kernel repeats a swallowed one after 1, 3, 7, 15 … seconds. So every
//! attempt lives one second, a new one starts every quarter of a second beside it, and the first that is accepted wins.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::ahead::ReadAhead;
use crate::health::{self, HealthError};
use crate::link::{Connected, LinkTarget};
use crate::relay;
use crate::tls::{self, Fault, TlsError};

/// A new attempt starts this often.
const EVERY: Duration = Duration::from_millis(250);
/// How long a guest may take to accept a TCP connection.
pub(crate) const TCP_PATIENCE: Duration = Duration::from_secs(1);
/// How long it may take for the TLS handshake, under emulation as well.
const TLS_PATIENCE: Duration = Duration::from_secs(5);
/// How long one question for the agent's health waits; the guest's end holds it until the agent is up.
const AGENT_PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the guest.
pub(crate) type Guest = TlsStream<ReadAhead>;

/// A [`LinkTarget`], ready to be dialled.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    name: ServerName<'static>,
    authority: String,
    plain: TlsConnector,
    session: TlsConnector,
}

/// Why a target cannot be dialled at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("{0:?} is no name for a guest")]
    Name(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Target {
    pub(crate) fn new(target: &LinkTarget) -> Result<Self, TargetError> {
        let name = ServerName::try_from(target.server_name.clone())
            .map_err(|_| TargetError::Name(target.server_name.chars().take(80).collect()))?;
        let tls: Arc<ClientConfig> = tls::near_client(&target.identity)?;
        let authority = target.identity.authority.clone();
        let session = TlsConnector::from(tls::offering_session(&tls));
        Ok(Self { address: target.address, name, authority, plain: TlsConnector::from(tls), session })
    }

    /// True when both lead to the same guest; their client certificates may differ.
    pub(crate) fn same_guest(&self, other: &Self) -> bool {
        (self.address, &self.name, &self.authority) == (other.address, &other.name, &other.authority)
    }

    /// TLS for one connection of the shim.
    pub(crate) async fn shake_hands(&self, tcp: TcpStream, patience: Duration) -> Result<Guest, Fault> {
        self.handshake(tcp, Purpose::Forward, patience).await
    }

    async fn handshake(&self, tcp: TcpStream, purpose: Purpose, patience: Duration) -> Result<Guest, Fault> {
        let tls = match purpose {
            Purpose::Agent => &self.plain,
            Purpose::Forward => &self.session,
        };
        match timeout(patience, tls.connect(self.name.clone(), ReadAhead::new(tcp))).await {
            Ok(Ok(guest)) => Ok(guest),
            Ok(Err(error)) => Err(tls::judge(&error)),
            Err(_) => Err(Fault::Passing(format!("the TLS handshake took longer than {patience:?}"))),
        }
    }
}

/// Why the agent was not reached.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The deadline passed; how the last attempt ended.
    Deadline(String),
    /// Trying again will not help.
    Untrusted(String),
}

/// What is known of a dialling under way.
struct Progress {
    started: Instant,
    port_open_after: Option<Duration>,
    attempts: u32,
    last: String,
}

impl Progress {
    fn new() -> Self {
        let last = "no attempt has ended yet".to_owned();
        Self { started: Instant::now(), port_open_after: None, attempts: 0, last }
    }
}

/// Dials until the agent answers `Health.Check`, and hands back the connection it answered on (which must carry nothing else: a
/// stream id is used up).
///
/// # Cancel safety
/// Dropping it ends all attempts.
pub(crate) async fn until_agent_answers(
    target: &Target,
    deadline: Duration,
) -> Result<(Connected, Guest), DialError> {
    let mut progress = Progress::new();
    tokio::select! {
        reached = attempt_until(target, &mut progress, Purpose::Agent) => {
            let guest = reached?;
            let agent_after = progress.started.elapsed();
            let port_open_after = progress.port_open_after.unwrap_or(agent_after);
            return Ok((Connected { port_open_after, agent_after, attempts: progress.attempts }, guest));
        }
        () = sleep(deadline) => {}
    }
    Err(DialError::Deadline(progress.last))
}

/// Dials until TLS stands, for one connection of the shim.
///
/// # Cancel safety
/// Dropping it ends all attempts.
pub(crate) async fn until_trusted(target: &Target, deadline: Duration) -> Result<Guest, DialError> {
    let mut progress = Progress::new();
    tokio::select! {
        reached = attempt_until(target, &mut progress, Purpose::Forward) => return reached,
        () = sleep(deadline) => {}
    }
    Err(DialError::Deadline(progress.last))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Agent,
    Forward,
}

async fn attempt_until(
    target: &Target,
    progress: &mut Progress,
    purpose: Purpose,
) -> Result<Guest, DialError> {
    loop {
        let began = Instant::now();
        let tcp = open_port(target.address, progress).await;
        match attempt(target, tcp, progress, purpose).await {
            Ok(guest) => return Ok(guest),
            Err(Fault::Untrusted(reason)) => return Err(DialError::Untrusted(reason)),
            Err(Fault::Passing(last)) => progress.last = last,
        }
        // A guest that accepts and hangs up must not be called in a tight loop.
        sleep_until(began + EVERY).await;
    }
}

async fn attempt(
    target: &Target,
    tcp: TcpStream,
    progress: &mut Progress,
    purpose: Purpose,
) -> Result<Guest, Fault> {
    progress.port_open_after.get_or_insert(progress.started.elapsed());
    "the port is open, and the TLS handshake was not over".clone_into(&mut progress.last);
    let mut guest = target.handshake(tcp, purpose, TLS_PATIENCE).await?;
    if purpose == Purpose::Agent {
        "the guest accepts our connections, and its agent did not answer Health.Check"
            .clone_into(&mut progress.last);
        match timeout(AGENT_PATIENCE, health::check(&mut guest)).await {
            Ok(answer) => answer.map_err(|error| not_healthy(&error))?,
            Err(_) => return Err(Fault::Passing(progress.last.clone())),
        }
    }
    Ok(guest)
}

fn not_healthy(error: &HealthError) -> Fault {
    match error {
        // Under TLS 1.3 a refusal arrives here.
        HealthError::Io(source) => match tls::judge(source) {
            untrusted @ Fault::Untrusted(_) => untrusted,
            Fault::Passing(_) => Fault::Passing(format!("asking the agent failed: {error}")),
        },
        other => Fault::Passing(other.to_string()),
    }
}

/// The first TCP connection the guest accepts.
async fn open_port(address: SocketAddr, progress: &mut Progress) -> TcpStream {
    let mut under_way = FuturesUnordered::new();
    let mut clock = interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {
                progress.attempts += 1;
                under_way.push(timeout(TCP_PATIENCE, TcpStream::connect(address)));
            }
            Some(ended) = under_way.next() => match ended {
                Ok(Ok(tcp)) => {
                    relay::tune(&tcp);
                    return tcp;
                }
                Ok(Err(error)) => progress.last = why_closed(&error),
                Err(_) => {
                    "no answer to a TCP connection: is the VM up, and do all firewalls between let this port through?"
                        .clone_into(&mut progress.last);
                }
            }
        }
    }
}

fn why_closed(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused: the VM is up, and peerpods-guest does not listen yet".to_owned()
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!("{error}: is the VM up, and is there a route to it?")
        }
        _ => format!("the TCP connection failed: {error}"),
    }
}
