//! One connection of the shim.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::commands::State;
use crate::dial::{self, DialError, Guest, Target};
use crate::relay::{self, Held};
use crate::session::near::{self as session, Line, NearSessionError};

/// How long a guest that answered before is tried for a further connection. Longer than any shim waits.
const DIAL_PATIENCE: Duration = Duration::from_secs(120);
/// How long a connection that broke is tried to be replaced: longer than a shim waits for an answer (runtime-rs: 90 s, Go: 30 s).
const RESUME_PATIENCE: Duration = Duration::from_secs(120);
/// How much is taken from a shim whose guest is not there yet; more stays in the kernel's buffer.
const HOLD: usize = 16 * 1024;

/// Why a shim's connection ended other than by its peers' will.
#[derive(Debug, thiserror::Error)]
enum ShimError {
    #[error("the guest could not be reached within {DIAL_PATIENCE:?}: {0}")]
    Unreachable(String),
    #[error("the guest was not accepted: {0}")]
    Untrusted(String),
    #[error(transparent)]
    Session(#[from] NearSessionError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<DialError> for ShimError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Deadline(last) => Self::Unreachable(last),
            DialError::Untrusted(reason) => Self::Untrusted(reason),
        }
    }
}

/// Serves one connection to its end.
pub(super) async fn serve(state: Arc<State>, shim: UnixStream) {
    let counted = Held::one_of(&state.shims);
    state.peers.note(&shim);
    match forward(shim, &state, counted).await {
        Ok(()) => tracing::debug!("a shim's connection ended"),
        Err(error) => tracing::warn!(%error, "a shim's connection was closed"),
    }
}

async fn forward(mut shim: UnixStream, state: &State, counted: Held<'_>) -> Result<(), ShimError> {
    let closing = &state.closing;
    let begun = closing.run_until_cancelled(begin(&mut shim, state)).await.transpose()?.flatten();
    let Some(Begun { mut early, mut guest, target }) = begun else { return Ok(()) };
    if session::is_agreed(&guest) {
        let newest = state.guest.subscribe();
        let line = Line { target, newest, patience: RESUME_PATIENCE, carried: &state.carried, closing };
        return Ok(Box::pin(session::forward(shim, early, guest, line, counted)).await?);
    }
    relay::bound_plain(guest.get_ref().0);
    let plain = async {
        guest.write_all_buf(&mut early).await?;
        guest.flush().await?;
        drop(early);
        splice(shim, guest).await
    };
    closing.run_until_cancelled(plain).await.unwrap_or(Ok(()))
}

/// A connection to the guest, and what the shim has said by then.
struct Begun {
    early: BytesMut,
    guest: Guest,
    target: Arc<Target>,
}

/// Reaches the guest once the shim has said something; none when it hung up before.
async fn begin(shim: &mut UnixStream, state: &State) -> Result<Option<Begun>, ShimError> {
    let mut early = BytesMut::new();
    if read_more(shim, &mut early).await? == 0 {
        return Ok(None);
    }
    let (guest, target) = tokio::select! {
        reached = reach(state.guest.subscribe()) => reached?,
        gone = hung_up(shim, &mut early) => return Ok(gone.map(|()| None)?),
    };
    Ok(Some(Begun { early, guest, target }))
}

async fn splice(shim: UnixStream, guest: Guest) -> Result<(), ShimError> {
    let (from_shim, to_shim) = shim.into_split();
    let (from_guest, to_guest) = tokio::io::split(guest);
    Ok(relay::both(relay::pump(from_shim, to_guest), relay::pump(from_guest, to_shim)).await?)
}

/// Waits for the daemon to name the guest, then dials it.
async fn reach(mut guest: watch::Receiver<Option<Arc<Target>>>) -> Result<(Guest, Arc<Target>), ShimError> {
    let target = loop {
        if let Some(target) = guest.borrow_and_update().clone() {
            break target;
        }
        if guest.changed().await.is_err() {
            return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
        }
    };
    Ok((dial::until_trusted(&target, DIAL_PATIENCE).await?, target))
}

/// Ends when the shim closes; keeps what it says meanwhile, up to a bound. What it says beyond that is not read, its end is noticed.
async fn hung_up(shim: &mut UnixStream, early: &mut BytesMut) -> io::Result<()> {
    while early.len() < HOLD {
        if read_more(shim, early).await? == 0 {
            return Ok(());
        }
    }
    shim.ready(relay::PEER_CLOSED).await.map(drop)
}

async fn read_more(shim: &mut UnixStream, early: &mut BytesMut) -> io::Result<usize> {
    early.reserve(HOLD - early.len().min(HOLD - 1));
    shim.read_buf(early).await
}
