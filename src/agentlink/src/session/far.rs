//! The far end of sessions: which there are, and the life of one.
//!
//! ```text
//! HELLO, no id ─▶ entered in the table ─▶ carried ◀─ HELLO with the id: the newer connection takes over, the older is dropped
//!                                          │   └─ broken ─▶ detached ─ patience over, or too many detached ─▶ agent's side closed
//!                                          └─ both directions complete, RESET, or told to stop ─▶ over
//! ```
//!
//! What is done with the bytes is not known here: a session hands them to a stream, and takes the answers from it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Id;
use super::carry::{End, Wire, carry};
use super::engine::{Engine, Violation};
use super::local::Local;
use super::pulse::Role;
use super::record::Record;

/// Connections that wait to take a session over. More than one only when they come faster than the session looks.
const QUEUE: usize = 4;

/// How many sessions may wait for their near end, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) patience: Duration,
    pub(crate) detached: usize,
}

/// Why a session ended other than by its peers' will.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FarSessionError {
    #[error("the other end broke the session's protocol: {0}")]
    Violated(#[from] Violation),
    #[error("the other end ended the session: {0:?}")]
    Reset(String),
    #[error("no connection took the session up again within {0:?}")]
    Forsaken(Duration),
    #[error("too many sessions wait for their other end; this one made room")]
    Displaced,
}

/// A connection for a session, and what its near end has received.
pub(crate) struct Attach<S> {
    wire: Wire<S>,
    received: u64,
}

/// All sessions of a far end.
pub(crate) struct Sessions<S> {
    table: Mutex<HashMap<Id, Entry<S>>>,
    limits: Limits,
}

struct Entry<S> {
    connections: mpsc::Sender<Attach<S>>,
    turn: u32,
    detached: Option<Detached>,
    displaced: CancellationToken,
}

/// Since when a session has no connection, and whether anything ever came over it: one whose WELCOME was lost never gets its near end back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Detached {
    used: bool,
    since: Instant,
}

/// A session as its own task sees it. Dropped, the session is no more.
pub(crate) struct Ticket<S> {
    sessions: Arc<Sessions<S>>,
    id: Id,
    connections: mpsc::Receiver<Attach<S>>,
    displaced: CancellationToken,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sessions<S> {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), limits })
    }

    /// Reads a connection's HELLO, for at most `patience`. A new session is handed back to be lived; a known one gets the connection.
    ///
    /// # Errors
    /// When the peer says something else, or nothing.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        stream: S,
        patience: Duration,
    ) -> io::Result<Option<(Ticket<S>, Attach<S>)>> {
        let mut wire = Wire::new(stream);
        let hello = wire.first(|record| match *record {
            Record::Hello { id, turn, received } => Some((id, turn, received)),
            _ => None,
        });
        let Some((id, turn, received)) = timeout(patience, hello).await?? else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a session begins with a HELLO"));
        };
        let attach = Attach { wire, received };
        if id == Id::NEW {
            return Ok(Some((self.enter(turn)?, attach)));
        }
        match self.join(id, turn, attach) {
            Joined::Taken => {}
            Joined::Late => tracing::debug!(session = ?id, "an old connection woke up; it is closed"),
            Joined::Unknown(attach) => {
                tracing::info!(session = ?id, "a session that is gone was asked for");
                attach.wire.refuse(&Record::Gone).await;
            }
        }
        Ok(None)
    }

    fn enter(self: &Arc<Self>, turn: u32) -> io::Result<Ticket<S>> {
        let id = random_id()?;
        let (sender, connections) = mpsc::channel(QUEUE);
        let displaced = CancellationToken::new();
        let entry = Entry { connections: sender, turn, detached: None, displaced: displaced.clone() };
        self.table().insert(id, entry);
        Ok(Ticket { sessions: self.clone(), id, connections, displaced })
    }

    fn join(&self, id: Id, turn: u32, attach: Attach<S>) -> Joined<S> {
        let mut table = self.table();
        let Some(entry) = table.get_mut(&id) else { return Joined::Unknown(attach) };
        if turn <= entry.turn {
            return Joined::Late;
        }
        entry.turn = turn;
        match entry.connections.try_send(attach) {
            Ok(()) => {
                entry.detached = None;
                Joined::Taken
            }
            // It is about to end.
            Err(mpsc::error::TrySendError::Closed(attach)) => Joined::Unknown(attach),
            // The near end calls again.
            Err(mpsc::error::TrySendError::Full(_)) => Joined::Late,
        }
    }

    /// Bounds how many sessions wait: the one that has waited longest goes, one that was never used first.
    fn detach(&self, id: Id, used: bool) {
        let mut table = self.table();
        if let Some(entry) = table.get_mut(&id) {
            entry.detached = Some(Detached { used, since: Instant::now() });
        }
        let waiting = table.iter().filter_map(|(id, entry)| entry.detached.map(|since| (since, *id)));
        let waiting: Vec<_> = waiting.collect();
        if waiting.len() <= self.limits.detached {
            return;
        }
        let first = waiting.into_iter().min_by_key(|(since, _)| *since);
        if let Some(entry) = first.and_then(|(_, id)| table.remove(&id)) {
            entry.displaced.cancel();
        }
    }

    /// The session has a connection again; false when it had to make room.
    fn attached(&self, id: Id) -> bool {
        self.table().get_mut(&id).map(|entry| entry.detached = None).is_some()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Id, Entry<S>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Joined<S> {
    Taken,
    Late,
    Unknown(Attach<S>),
}

impl<S> Drop for Ticket<S> {
    fn drop(&mut self) {
        self.sessions.table.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

fn random_id() -> io::Result<Id> {
    let mut id = Id::NEW;
    let random = aws_lc_rs::default_provider().secure_random;
    random.fill(&mut id.0).map_err(|_| io::Error::other("there are no random numbers"))?;
    Ok(id)
}

/// What ends a session's time with one connection.
enum Turn<S> {
    Ended(End),
    Replaced(Attach<S>),
    Stopped,
}

/// Carries a session from its first connection on, until it is over or `stop` is cancelled.
///
/// # Errors
/// [`FarSessionError`]: the agent's side is to be closed.
pub(crate) async fn live<S, A>(
    mut ticket: Ticket<S>,
    first: Attach<S>,
    agent: A,
    stop: &CancellationToken,
) -> Result<(), FarSessionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: AsyncRead + AsyncWrite + Unpin,
{
    let mut local = Local::new(agent);
    let mut engine = Engine::default();
    let mut attach = first;
    loop {
        let Attach { mut wire, received } = attach;
        if let Err(violation) = engine.begin(received) {
            return conclude(End::Violated(violation), wire, &mut engine).await;
        }
        wire.say(&Record::Welcome { id: ticket.id, received: engine.incoming.received() });
        let turn = tokio::select! {
            biased;
            () = stop.cancelled() => Turn::Stopped,
            Some(newer) = ticket.connections.recv() => Turn::Replaced(newer),
            ended = carry(&mut wire, &mut engine, &mut local, Role::Far) => Turn::Ended(ended),
        };
        attach = match turn {
            Turn::Replaced(newer) => newer,
            Turn::Stopped => {
                wire.farewell(&mut engine, "the guest's end of the link is closing").await;
                return Ok(());
            }
            Turn::Ended(End::Broken(why)) if !engine.outgoing.end_confirmed() => {
                tracing::info!(session = ?ticket.id, why, "the connection to the worker broke");
                engine.rest();
                drop(wire);
                match wait(&mut ticket, &mut engine, &mut local, stop).await? {
                    Some(newer) => newer,
                    None => return Ok(()),
                }
            }
            Turn::Ended(ended) => return conclude(ended, wire, &mut engine).await,
        };
    }
}

async fn conclude<S: AsyncRead + AsyncWrite + Unpin>(
    ended: End,
    wire: Wire<S>,
    engine: &mut Engine,
) -> Result<(), FarSessionError> {
    match ended {
        End::Reset(reason) if reason.is_empty() => Ok(()),
        End::Reset(reason) => Err(FarSessionError::Reset(reason)),
        End::Violated(violation) => {
            wire.farewell(engine, &violation.to_string()).await;
            Err(violation.into())
        }
        End::Over | End::Broken(_) | End::Lost(_) => {
            wire.farewell(engine, "").await;
            Ok(())
        }
    }
}

/// Waits for the next connection; none when told to stop. The agent is served meanwhile.
async fn wait<S, A>(
    ticket: &mut Ticket<S>,
    engine: &mut Engine,
    local: &mut Local<A>,
    stop: &CancellationToken,
) -> Result<Option<Attach<S>>, FarSessionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: AsyncRead + AsyncWrite + Unpin,
{
    let patience = ticket.sessions.limits.patience;
    if ticket.connections.is_empty() {
        ticket.sessions.detach(ticket.id, engine.incoming.received() > 0);
    }
    tokio::select! {
        biased;
        Some(newer) = ticket.connections.recv() => {
            if ticket.sessions.attached(ticket.id) { Ok(Some(newer)) } else { Err(FarSessionError::Displaced) }
        }
        () = stop.cancelled() => Ok(None),
        () = ticket.displaced.cancelled() => Err(FarSessionError::Displaced),
        () = sleep(patience) => Err(FarSessionError::Forsaken(patience)),
        () = local.keep_moving(engine) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
