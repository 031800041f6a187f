//! The near end of a session: one connection of the shim, carried over as many connections to the guest as it takes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::carry::{End, Wire, carry};
use super::engine::{Engine, Violation};
use super::local::Local;
use super::pulse::{Role, SILENCE};
use super::record::Record;
use super::{Id, PROTOCOL, redial};
use crate::dial::{Guest, Target};
use crate::relay::Held;
use crate::tls::{self, Fault};

/// A guest that greets wrongly, or hangs up, is called again after so long.
const AGAIN: Duration = Duration::from_millis(500);

/// How often it is looked whether a shim that has said all is still there, while there is no connection to tell it by.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a guest may take to greet. It is no more than a look into a table; one that hangs would keep a better connection waiting.
const GREETING: Duration = Duration::from_secs(2);

/// Why a session ended other than by its peers' will.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NearSessionError {
    #[error("the connection to the guest broke and could not be replaced within {patience:?}: {last}")]
    NotResumed { patience: Duration, last: String },
    #[error("the guest no longer has this session: its end of the link was restarted, or waited too long")]
    Gone,
    #[error(transparent)]
    Deserted(#[from] redial::Deserted),
    #[error("what answers at the guest's address now cannot resume a session")]
    Plain,
    #[error("the guest was not accepted, or does not accept us: {0}")]
    Untrusted(String),
    #[error("the guest ended the session: {0:?}")]
    Reset(String),
    #[error("the guest broke the session's protocol: {0}")]
    Violated(#[from] Violation),
    #[error("the shim's connection broke: {0}")]
    Shim(io::Error),
}

/// True when the other end has agreed to a session on this connection.
pub(crate) fn is_agreed(guest: &Guest) -> bool {
    guest.get_ref().1.alpn_protocol() == Some(PROTOCOL)
}

/// Where the guest is, with which certificate it is called at present, and what a session shares with others.
pub(crate) struct Line<'a> {
    pub(crate) target: Arc<Target>,
    pub(crate) newest: watch::Receiver<Option<Arc<Target>>>,
    /// How long a broken connection is tried to be replaced, unless the guest's port is refused for longer than its service takes to start anew.
    pub(crate) patience: Duration,
    /// How many sessions have a connection.
    pub(crate) carried: &'a AtomicUsize,
    /// Cancelled when the link ends.
    pub(crate) closing: &'a CancellationToken,
}

impl Line<'_> {
    /// The target the daemon named last, as long as it is the same guest: a session stays with the guest it has.
    fn target(&self) -> Arc<Target> {
        let newest = self.newest.borrow().clone();
        newest.filter(|newest| newest.same_guest(&self.target)).unwrap_or_else(|| self.target.clone())
    }
}

/// Who this is to the far end.
struct Name {
    id: Id,
    turn: u32,
}

/// Carries a connection of the shim, which has said `early` so far; `first` is the connection that was dialled for it. `shims` counts it
/// as long as the shim is there.
///
/// # Errors
/// [`NearSessionError`]: the shim's connection is to be closed.
pub(crate) async fn forward(
    shim: UnixStream,
    early: BytesMut,
    first: Guest,
    line: Line<'_>,
    shims: Held<'_>,
) -> Result<(), NearSessionError> {
    let mut local = Local::new(shim);
    let mut engine = Engine::default();
    engine.outgoing.push(&early);
    drop(early);
    let mut name = Name { id: Id::NEW, turn: 0 };
    let (mut first, mut shims) = (Some(first), Some(shims));
    loop {
        let reached = tokio::select! {
            biased;
            () = line.closing.cancelled() => return Ok(()),
            reached = connected(&mut name, first.take(), &line, &mut engine, &mut local, &mut shims) => reached,
        };
        let (mut wire, received) = reached?;
        if let Err(violation) = engine.begin(received) {
            return conclude(End::Violated(violation), wire, &mut engine).await;
        }
        let counted = Held::one_of(line.carried);
        let ended = tokio::select! {
            biased;
            () = line.closing.cancelled() => {
                // In good order, and at once: the guest need not wait for a link that is no more.
                wire.refuse(&Record::Reset { reason: b"" }).await;
                return Ok(());
            }
            ended = carry(&mut wire, &mut engine, &mut local, Role::Near) => ended,
        };
        drop(counted);
        match ended {
            End::Broken(why) if !engine.incoming.end_consumed() => {
                tracing::info!(session = ?name.id, why, "the connection to the guest broke; dialling");
                engine.rest();
            }
            End::Broken(_) => return Ok(()),
            ended => return conclude(ended, wire, &mut engine).await,
        }
    }
}

async fn conclude(ended: End, wire: Wire<Guest>, engine: &mut Engine) -> Result<(), NearSessionError> {
    match ended {
        End::Over | End::Broken(_) => {
            wire.farewell(engine, "").await;
            Ok(())
        }
        End::Reset(_) if engine.incoming.end_consumed() => Ok(()),
        End::Reset(reason) => Err(NearSessionError::Reset(reason)),
        End::Violated(violation) => {
            wire.farewell(engine, &violation.to_string()).await;
            Err(violation.into())
        }
        End::Lost(error) => {
            wire.farewell(engine, "the shim is gone").await;
            Err(NearSessionError::Shim(error))
        }
    }
}

/// The next connection, greeted: `first`, or else one that is dialled now. The shim is served meanwhile.
async fn connected(
    name: &mut Name,
    first: Option<Guest>,
    line: &Line<'_>,
    engine: &mut Engine,
    local: &mut Local<UnixStream>,
    shims: &mut Option<Held<'_>>,
) -> Result<(Wire<Guest>, u64), NearSessionError> {
    let began = Instant::now();
    let received = engine.incoming.received();
    let mut last = "no attempt has ended yet".to_owned();
    let mut reached = Box::pin(greeted(name, first, line, received, &mut last));
    let patience_over = sleep_until(began + line.patience);
    tokio::pin!(patience_over);
    loop {
        tokio::select! {
            reached = &mut reached => return reached,
            lost = local.until_lost(engine) => return Err(NearSessionError::Shim(lost)),
            () = &mut patience_over => break,
            // What it said is still delivered; but nobody waits for an answer.
            () = sleep(LOOK_EVERY), if shims.is_some() => if local.is_hung_up() { *shims = None },
        }
    }
    drop(reached);
    Err(NearSessionError::NotResumed { patience: line.patience, last })
}

async fn greeted(
    name: &mut Name,
    mut first: Option<Guest>,
    line: &Line<'_>,
    received: u64,
    last: &mut String,
) -> Result<(Wire<Guest>, u64), NearSessionError> {
    loop {
        let guest = match first.take() {
            Some(guest) => guest,
            None => redial::until_trusted(|| line.target(), last).await.map_err(NearSessionError::from)?,
        };
        if !is_agreed(&guest) {
            return Err(NearSessionError::Plain);
        }
        match timeout(GREETING, greet(name, guest, received)).await {
            Ok(Ok((wire, Greeting::Welcome { id, received }))) => {
                name.id = id;
                return Ok((wire, received));
            }
            Ok(Ok((_, Greeting::Gone))) => return Err(NearSessionError::Gone),
            Ok(Ok((_, Greeting::Refused(why)))) => return Err(NearSessionError::Reset(why)),
            Ok(Err(error)) => match tls::judge(&error) {
                // Under TLS 1.3 a refusal arrives here. Later it may pass: the daemon may give us another certificate.
                Fault::Untrusted(why) if name.id == Id::NEW => return Err(NearSessionError::Untrusted(why)),
                _ => *last = format!("the guest's greeting did not come: {error}"),
            },
            Err(_) => *last = format!("the guest's greeting did not come within {GREETING:?}"),
        }
        sleep(AGAIN).await;
    }
}

enum Greeting {
    Welcome { id: Id, received: u64 },
    Gone,
    Refused(String),
}

async fn greet(name: &mut Name, guest: Guest, received: u64) -> io::Result<(Wire<Guest>, Greeting)> {
    super::tune(guest.get_ref().0, SILENCE);
    let mut wire = Wire::new(guest);
    name.turn = name.turn.saturating_add(1);
    wire.say(&Record::Hello { id: name.id, turn: name.turn, received });
    let asked = name.id;
    let greeting = wire.first(|record| match *record {
        Record::Welcome { id, received } if id == asked || asked == Id::NEW => {
            Greeting::Welcome { id, received }
        }
        Record::Gone => Greeting::Gone,
        Record::Reset { reason } => Greeting::Refused(String::from_utf8_lossy(reason).into_owned()),
        _ => Greeting::Refused("its greeting is none".to_owned()),
    });
    let greeting = greeting.await?;
    Ok((wire, greeting))
}

#[cfg(test)]
mod tests;
