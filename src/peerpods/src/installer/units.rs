//! The host's container runtimes as units of its systemd: whether they run, and running them anew.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};
use zbus::connection::Builder;
use zbus::{Connection, OwnedObjectPath, OwnedVariant};

use super::Runtime;

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// How long systemd may take to answer.
const CALL: Duration = Duration::from_secs(10);
/// How long a container runtime may take to come back. containerd looks at every container of the node first.
const COMEBACK: Duration = Duration::from_secs(90);
/// How long it has to stay, before that counts.
const STAY: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why a container runtime could not be restarted or asked about.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// systemd was not reached.
    #[error("the host's systemd does not answer on {bus}")]
    Unreachable {
        /// Its bus.
        bus: String,
        /// Why not.
        source: Box<zbus::Error>,
    },
    /// It answered with an error.
    #[error("systemd cannot {doing} {unit}")]
    Refused {
        /// What was asked.
        doing: &'static str,
        /// Of which unit.
        unit: &'static str,
        /// Its answer.
        source: Box<zbus::Error>,
    },
    /// The unit did not come back.
    #[error(
        "{unit} did not come back after its restart, it is {state}; see `journalctl -u {unit}` on the node"
    )]
    Away {
        /// The unit.
        unit: &'static str,
        /// Its state.
        state: String,
    },
}

/// The host's container runtimes.
#[async_trait::async_trait]
pub trait Units: Send + Sync {
    /// Whether the node uses it: it runs, or is about to again.
    async fn runs(&self, runtime: Runtime) -> Result<bool, UnitError>;

    /// Restarts it, and returns when it has come back. Called again after a crash it restarts it again, which does no harm.
    async fn restart(&self, runtime: Runtime) -> Result<(), UnitError>;
}

/// Asks systemd, on the host's system bus. The connection is made for each question: the bus may restart in the minutes between.
#[derive(Debug, Clone)]
pub struct Systemd {
    bus: PathBuf,
}

impl Systemd {
    /// By this socket.
    #[must_use]
    pub fn on(bus: &Path) -> Self {
        Self { bus: bus.to_owned() }
    }

    async fn connect(&self) -> Result<Connection, UnitError> {
        let connect = async {
            let stream = UnixStream::connect(&self.bus).await?.into_std()?;
            Builder::unix_stream(stream).method_timeout(CALL).build().await
        };
        let answer = timeout(CALL, connect).await.unwrap_or_else(|_| {
            let why = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {CALL:?}"));
            Err(why.into())
        });
        answer.map_err(|source| UnitError::Unreachable {
            bus: self.bus.display().to_string(),
            source: source.into(),
        })
    }
}

#[async_trait::async_trait]
impl Units for Systemd {
    async fn runs(&self, runtime: Runtime) -> Result<bool, UnitError> {
        let connection = self.connect().await?;
        Ok(is_used(&look(&connection, runtime.unit()).await?.active))
    }

    async fn restart(&self, runtime: Runtime) -> Result<(), UnitError> {
        let unit = runtime.unit();
        let connection = self.connect().await?;
        let before = look(&connection, unit).await?;
        let asked = (unit, "replace");
        let queued = connection.call_method(Some(NAME), PATH, Some(MANAGER), "RestartUnit", &asked);
        queued.await.map_err(refused("restart", unit))?;
        comeback(&connection, unit, &before).await
    }
}

/// Whether a node uses a runtime in this state. One that is being started, as each is after a restart, is no reason to take our files from it:
/// it would come up without them.
fn is_used(state: &str) -> bool {
    !["inactive", "failed"].contains(&state)
}

/// Waits until it runs as another process than before, and a moment longer.
async fn comeback(connection: &Connection, unit: &'static str, before: &Seen) -> Result<(), UnitError> {
    let deadline = Instant::now() + COMEBACK;
    let mut since: Option<(Instant, Seen)> = None;
    loop {
        let seen = look(connection, unit).await?;
        let back = seen.active == "active" && seen.invocation != before.invocation;
        since = match since {
            Some((at, known)) if back && known == seen => Some((at, known)),
            _ if back => Some((Instant::now(), seen.clone())),
            _ => None,
        };
        if since.as_ref().is_some_and(|(at, _)| at.elapsed() >= STAY) {
            return Ok(());
        }
        let fell = seen.active == "failed" && seen.invocation != before.invocation;
        if fell || Instant::now() > deadline {
            return Err(UnitError::Away { unit, state: seen.active });
        }
        sleep(LOOK_EVERY).await;
    }
}

/// A unit at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    active: String,
    /// Another one each time it is started.
    invocation: Vec<u8>,
}

async fn look(connection: &Connection, unit: &'static str) -> Result<Seen, UnitError> {
    let found = async {
        // Also of one that nobody knows: it is inactive then.
        let answer = connection.call_method(Some(NAME), PATH, Some(MANAGER), "LoadUnit", &(unit,)).await?;
        let path: OwnedObjectPath = answer.body().deserialize()?;
        Ok(Seen {
            active: String::try_from(property(connection, path.as_str(), "ActiveState").await?)?,
            invocation: Vec::<u8>::try_from(property(connection, path.as_str(), "InvocationID").await?)?,
        })
    };
    found.await.map_err(refused("tell about", unit))
}

async fn property(connection: &Connection, path: &str, name: &str) -> zbus::Result<OwnedVariant> {
    let properties = Some("org.freedesktop.DBus.Properties");
    connection.call_method(Some(NAME), path, properties, "Get", &(UNIT, name)).await?.body().deserialize()
}

fn refused(doing: &'static str, unit: &'static str) -> impl FnOnce(zbus::Error) -> UnitError {
    move |source| UnitError::Refused { doing, unit, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_is_being_restarted_is_used() {
        let used = ["active", "reloading", "activating", "deactivating", "inactive", "failed"].map(is_used);
        assert_eq!(used, [true, true, true, true, false, false]);
    }
}
