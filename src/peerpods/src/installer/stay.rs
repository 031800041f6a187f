//! Stays on a node as long as its pod does: makes it as wished, says that it is ready, and looks every minute whether all is still so.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::act::{self, InstallError, Report};
use super::host::{Host, HostError, Lock};
use super::plan::Wish;
use super::units::Units;

/// How often all is looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often it is asked whether whoever works on the host is done.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Why staying ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum StayError {
    /// The host is not as wished.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The host's files cannot be reached.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Nobody can be told.
    #[error("cannot write {path}")]
    Ready {
        /// The file that says so.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] std::io::Error),
}

/// Where readiness is told: a file that is there while the host is as wished.
#[derive(Debug, Clone)]
pub struct ReadyFile(PathBuf);

impl ReadyFile {
    /// At this path.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Whether it is there.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.exists()
    }

    fn say(&self, ready: Readiness) -> Result<(), StayError> {
        let said = match ready {
            Readiness::Yes => std::fs::write(&self.0, b""),
            Readiness::No => match std::fs::remove_file(&self.0) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                done => done,
            },
        };
        said.map_err(|source| StayError::Ready { path: self.0.clone(), source })
    }
}

#[derive(Clone, Copy)]
enum Readiness {
    Yes,
    No,
}

/// Waits until nobody else works on the host: the pod that placed files, while this one is to remove them.
///
/// # Errors
/// When the host has no place to lock.
pub async fn alone(host: &Host) -> Result<Lock, HostError> {
    let mut told = false;
    loop {
        if let Some(lock) = host.lock()? {
            return Ok(lock);
        }
        if !std::mem::replace(&mut told, true) {
            tracing::info!("waiting for another install-node on this host to end");
        }
        sleep(ASK_EVERY).await;
    }
}

/// Once, and no more.
///
/// # Errors
/// Why the host is not as wished.
pub async fn once(host: &Host, units: &dyn Units, wish: &Wish) -> Result<Report, StayError> {
    let _lock = alone(host).await?;
    Ok(act::converge(host, units, wish).await?)
}

/// Until SIGTERM or SIGINT. What was placed stays then; `tell` is called with what was done first.
///
/// # Errors
/// Why the host is not, or not any more, as wished: whoever runs this runs it again.
pub async fn stay(
    host: &Host,
    units: &dyn Units,
    wish: &Wish,
    ready: &ReadyFile,
    look_every: Duration,
    tell: impl FnOnce(&Report),
) -> Result<(), StayError> {
    ready.say(Readiness::No)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(StayError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StayError::Signals)?;
    let working = async {
        let _lock = alone(host).await?;
        tell(&act::converge(host, units, wish).await?);
        ready.say(Readiness::Yes)?;
        loop {
            sleep(look_every).await;
            look_again(host, units, wish, ready).await?;
        }
    };
    let ended = tokio::select! {
        ended = working => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    ready.say(Readiness::No)?;
    ended
}

async fn look_again(host: &Host, units: &dyn Units, wish: &Wish, ready: &ReadyFile) -> Result<(), StayError> {
    let report = act::converge(host, units, wish).await;
    if report.is_err() {
        ready.say(Readiness::No)?;
    }
    let report = report?;
    if !report.is_empty() {
        tracing::warn!(?report, "somebody changed what is ours; put right");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
