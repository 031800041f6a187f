//! Reaching the guest: a TCP port that may not be open yet, TLS, and the agent's answer.
//!
//! A guest that boots swallows connection attempts, and the kernel repeats a swallowed one after 1, 3, 7, 15 … seconds. So every
//! attempt lives one second, new ones start beside it, and the first that is accepted wins. The pause before the next grows with the
//! time waited so far, from 10 to 250 ms: an open port is seen late by about a hundredth of that, and a VM that takes long is not flooded
//! meanwhile.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use peerpods_podvm::token::{AdmissionToken, GuestKey};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::admission::{self, Binding, Denied};
use crate::ahead::ReadAhead;
use crate::health::{self, HealthError};
use crate::link::{Connected, GuestTrust, LinkTarget};
use crate::relay;
use crate::tls::{self, Fault, TlsError};

/// The shortest pause before a new attempt at the port.
const SHORTEST: Duration = Duration::from_millis(10);
/// The longest; also the pause after a connection that came to nothing.
const EVERY: Duration = Duration::from_millis(250);
/// Which part of the time waited so far the pause is.
const PART: u32 = 100;
/// How long a guest may take to accept a TCP connection.
pub(crate) const TCP_PATIENCE: Duration = Duration::from_secs(1);
/// How long it may take for the TLS handshake, under emulation as well.
const TLS_PATIENCE: Duration = Duration::from_secs(5);
/// How long one question for the agent's health waits; the guest's end holds it until the agent is up.
const AGENT_PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the guest.
pub(crate) type Guest = TlsStream<ReadAhead>;

/// A [`LinkTarget`], ready to be dialled.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    name: ServerName<'static>,
    authority: String,
    trust: Mutex<Trust>,
}

/// How the guest is known at present.
enum Trust {
    /// By what the connectors check; by which key, unless by a certificate of the authority.
    Known { lines: Lines, key: Option<GuestKey> },
    /// Not yet.
    Token(Claim),
}

/// The two ways to talk to a guest that is known.
#[derive(Clone)]
struct Lines {
    plain: TlsConnector,
    session: TlsConnector,
}

impl Lines {
    fn new(tls: Arc<ClientConfig>) -> Self {
        let session = TlsConnector::from(tls::offering_session(&tls));
        Self { plain: TlsConnector::from(tls), session }
    }
}

/// What it takes to admit a guest.
#[derive(Clone)]
struct Claim {
    token: AdmissionToken,
    tls: Arc<ClientConfig>,
    /// As the guest sees us.
    own: GuestKey,
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
        let identity = &target.identity;
        let trust = match &target.guest {
            GuestTrust::Authority => {
                Trust::Known { lines: Lines::new(tls::near_client(identity)?), key: None }
            }
            GuestTrust::Key(key) => Trust::by_key(&tls::near_admitting(identity)?, *key),
            GuestTrust::Token(token) => Trust::Token(Claim {
                token: token.clone(),
                tls: Arc::new(tls::near_admitting(identity)?),
                own: tls::key_shown_by(identity)?,
            }),
        };
        let authority = identity.authority.clone();
        Ok(Self { address: target.address, name, authority, trust: Mutex::new(trust) })
    }

    /// True when both lead to the same guest; their client certificates may differ.
    pub(crate) fn same_guest(&self, other: &Self) -> bool {
        self.same_place(other) && self.key() == other.key()
    }

    fn same_place(&self, other: &Self) -> bool {
        (self.address, &self.name, &self.authority) == (other.address, &other.name, &other.authority)
    }

    /// The key the guest is known by, if it is known by one.
    pub(crate) fn key(&self) -> Option<GuestKey> {
        match &*self.trust() {
            Trust::Known { key, .. } => *key,
            Trust::Token(_) => None,
        }
    }

    /// What `asked` leads to, when the guest there was admitted before: it is known by its key, whoever asks (a daemon before this one
    /// knows no keys) and whatever token it brings. None when that is something else.
    pub(crate) fn recognised(&self, asked: &LinkTarget, new: &Self) -> Result<Option<Self>, TargetError> {
        match self.key() {
            Some(key) if self.same_place(new) && new.key().is_none() => {
                Self::new(&LinkTarget { guest: GuestTrust::Key(key), ..asked.clone() }).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The guest has proved itself: it is known by its key from here on, and the token is wiped.
    fn admit(&self, key: GuestKey) {
        let mut trust = self.trust();
        if let Trust::Token(claim) = &*trust {
            *trust = Trust::by_key(&claim.tls, key);
        }
    }

    fn claim(&self) -> Option<Claim> {
        match &*self.trust() {
            Trust::Token(claim) => Some(claim.clone()),
            Trust::Known { .. } => None,
        }
    }

    fn trust(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// TLS for one connection of the shim.
    pub(crate) async fn shake_hands(&self, tcp: TcpStream, patience: Duration) -> Result<Guest, Fault> {
        self.handshake(tcp, Purpose::Forward, patience).await
    }

    async fn handshake(&self, tcp: TcpStream, purpose: Purpose, patience: Duration) -> Result<Guest, Fault> {
        let tls = match (&*self.trust(), purpose) {
            (Trust::Known { lines, .. }, Purpose::Agent) => lines.plain.clone(),
            (Trust::Known { lines, .. }, Purpose::Forward) => lines.session.clone(),
            (Trust::Token(claim), _) => TlsConnector::from(claim.tls.clone()),
        };
        match timeout(patience, tls.connect(self.name.clone(), ReadAhead::new(tcp))).await {
            Ok(Ok(guest)) => Ok(guest),
            Ok(Err(error)) => Err(tls::judge(&error)),
            Err(_) => Err(Fault::Passing(format!("the TLS handshake took longer than {patience:?}"))),
        }
    }

    /// Asks for the agent's health, and admits the guest on the way when that is still to be done.
    async fn check(&self, guest: &mut Guest) -> Result<(), Fault> {
        let Some(claim) = self.claim() else {
            return health::check(guest).await.map_err(|error| not_healthy(&error));
        };
        let broken = |error: io::Error| not_healthy(&error.into());
        let (key, binding) = claim.binding(guest)?;
        admission::say(guest, &claim.token, &binding).await.map_err(broken)?;
        // In the same flight: an answer comes from a guest that was admitted, or not at all.
        health::ask(guest).await.map_err(|error| not_healthy(&error))?;
        match admission::hear(guest, &claim.token, &binding).await {
            Ok(()) => self.admit(key),
            Err(Denied::For(reason)) => return Err(Fault::Untrusted(reason)),
            Err(Denied::Io(error)) => return Err(broken(error)),
        }
        drop(claim);
        tracing::info!(guest = %key, "the guest was admitted by its token, and is known by its key from here on");
        health::hear(guest).await.map_err(|error| not_healthy(&error))
    }
}

impl Trust {
    fn by_key(admitting: &ClientConfig, key: GuestKey) -> Self {
        let lines = Lines::new(Arc::new(tls::near_knowing(admitting, key)));
        Self::Known { lines, key: Some(key) }
    }
}

impl Claim {
    /// The key the guest shows, and what ties our proofs to this connection.
    fn binding(&self, guest: &Guest) -> Result<(GuestKey, Binding), Fault> {
        let tls = guest.get_ref().1;
        if tls.alpn_protocol() != Some(admission::PROTOCOL) {
            return Err(Fault::Untrusted(
                "it cannot be admitted by a token: its image holds another guest than ours, or an older one; set guest-identity to \
                 stock or auto"
                    .to_owned(),
            ));
        }
        let unreadable = |error: &dyn std::fmt::Display| {
            Fault::Passing(format!("its certificate cannot be read: {error}"))
        };
        let shown =
            tls.peer_certificates().and_then(<[_]>::first).ok_or_else(|| unreadable(&"there is none"))?;
        let key = tls::key_of(shown).map_err(|error| unreadable(&error))?;
        let binding = Binding::of(tls, key, self.own).map_err(|error| unreadable(&error))?;
        Ok((key, binding))
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
    /// How far the attempt under way has come, where that tells something.
    stage: Option<&'static str>,
    /// How the last one ended.
    last: Option<String>,
}

impl Progress {
    fn new() -> Self {
        Self { started: Instant::now(), port_open_after: None, attempts: 0, stage: None, last: None }
    }

    /// Why there is no agent yet.
    fn told(self) -> String {
        match (self.stage, self.last) {
            (Some(stage), Some(last)) => format!("{stage}; before that: {last}"),
            (Some(stage), None) => stage.to_owned(),
            (None, Some(last)) => last,
            (None, None) => "no attempt has ended yet".to_owned(),
        }
    }

    fn ended(&mut self, why: String) {
        (self.stage, self.last) = (None, Some(why));
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
            let guest_key = target.key();
            return Ok((Connected { guest_key, port_open_after, agent_after, attempts: progress.attempts }, guest));
        }
        () = sleep(deadline) => {}
    }
    Err(DialError::Deadline(progress.told()))
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
    Err(DialError::Deadline(progress.told()))
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
            Err(Fault::Passing(last)) => progress.ended(last),
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
    progress.stage = Some("the port is open, and the TLS handshake was not over");
    let mut guest = target.handshake(tcp, purpose, TLS_PATIENCE).await?;
    if purpose == Purpose::Agent {
        let asked = "the guest accepts our connections, and its agent did not answer Health.Check";
        progress.stage = Some(asked);
        match timeout(AGENT_PATIENCE, target.check(&mut guest)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(Fault::Passing(asked.to_owned())),
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
    let mut next = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(next) => {
                progress.attempts += 1;
                under_way.push(timeout(TCP_PATIENCE, TcpStream::connect(address)));
                next = Instant::now() + pause(progress.started.elapsed());
            }
            Some(ended) = under_way.next() => match ended {
                Ok(Ok(tcp)) => {
                    relay::tune(&tcp);
                    return tcp;
                }
                Ok(Err(error)) => progress.ended(why_closed(&error)),
                Err(_) => progress.ended(
                    "no answer to a TCP connection: is the VM up, and do all firewalls between let this port through?"
                        .to_owned(),
                ),
            }
        }
    }
}

/// How long until the next attempt, after so long without an open port.
fn pause(waited: Duration) -> Duration {
    (waited / PART).clamp(SHORTEST, EVERY)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_port_is_seen_within_a_hundredth_of_the_wait() {
        let millis = Duration::from_millis;
        for (waited, expected) in [(0, 10), (900, 10), (3_000, 30), (25_000, 250), (300_000, 250)] {
            assert_eq!(pause(millis(waited)), millis(expected), "after {waited} ms");
        }
    }

    #[test]
    fn a_deadline_within_an_attempt_hides_no_reason_of_those_before() {
        let mut progress = Progress::new();
        assert_eq!(Progress::new().told(), "no attempt has ended yet");
        progress.ended("set guest-identity to stock".to_owned());
        progress.stage = Some("the TLS handshake was not over");
        assert_eq!(
            progress.told(),
            "the TLS handshake was not over; before that: set guest-identity to stock"
        );
    }

    #[test]
    fn a_vm_that_takes_a_minute_is_called_some_hundred_times() {
        let (mut waited, mut attempts) = (Duration::ZERO, 0);
        while waited < Duration::from_secs(60) {
            waited += pause(waited);
            attempts += 1;
        }
        assert!((400..700).contains(&attempts), "{attempts}");
    }
}
