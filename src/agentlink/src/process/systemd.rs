//! Talking to the host's systemd over D-Bus. Decides nothing; the interface is systemd's `org.freedesktop.systemd1(5)`.
//!
//! It is reached by its own socket (`/run/systemd/private`: root only, no bus daemon, no `Hello`) or through the system bus. Which of both a
//! socket is, is found by trying: a bus hangs up on whoever does not begin with `Hello`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;
use zbus::connection::Builder;
use zbus::{Connection, DynamicType, Message, OwnedObjectPath, OwnedVariant, Variant};

use super::unit::{PATTERN, State, Unit};

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// How long a call may take once the manager has answered: it queues a job and waits for nothing.
const CALL_PATIENCE: Duration = Duration::from_secs(5);

/// A row of the property `ExecStart`: program, arguments, whether failure is ignored, and when it ran how.
type ExecStatus = (String, Vec<String>, bool, u64, u64, u64, u64, u32, i32, i32);
/// A row of `ListUnitsByPatterns`: name, description, three states, followed unit, object, and its job.
type Listed = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// A manager that answers.
#[derive(Debug, Clone)]
pub(super) struct Systemd {
    connection: Connection,
    /// By which socket.
    pub(super) socket: PathBuf,
    /// As it calls itself.
    pub(super) version: String,
}

impl Systemd {
    /// The first of `sockets` behind which a manager answers within `patience`, all of them together; else why not.
    pub(super) async fn reach(sockets: &[PathBuf], patience: Duration) -> Result<Self, String> {
        let mut reasons = Vec::new();
        let found = timeout(patience, async {
            for socket in sockets {
                match Self::at(socket).await {
                    Ok(found) => return Some(found),
                    Err(reason) => reasons.push(format!("{}: {reason}", socket.display())),
                }
            }
            None
        });
        match found.await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(reasons.join("; ")),
            Err(_) => {
                reasons.push(format!("no answer within {patience:?}"));
                Err(reasons.join("; "))
            }
        }
    }

    async fn at(socket: &Path) -> Result<Self, String> {
        match Self::greet(socket, |builder| builder.p2p()).await {
            Ok(found) => Ok(found),
            Err(zbus::Error::InputOutput(error)) if is_nobody(&error) => Err(error.to_string()),
            Err(alone) => {
                let through_bus = Self::greet(socket, |builder| builder).await;
                through_bus.map_err(|bus| format!("as systemd's own socket: {alone}; as a bus: {bus}"))
            }
        }
    }

    async fn greet(socket: &Path, speaking: fn(Builder<'_>) -> Builder<'_>) -> zbus::Result<Self> {
        let stream = UnixStream::connect(socket).await?.into_std()?;
        let builder = speaking(Builder::unix_stream(stream)).method_timeout(CALL_PATIENCE);
        let connection = builder.build().await?;
        let version = text(&connection, PATH, MANAGER, "Version").await?;
        Ok(Self { connection, socket: socket.to_owned(), version })
    }

    async fn call<B>(&self, method: &str, body: &B) -> zbus::Result<Message>
    where
        B: serde::Serialize + DynamicType,
    {
        self.connection.call_method(Some(NAME), PATH, Some(MANAGER), method, body).await
    }

    /// Queues the start of a unit that is not there yet.
    pub(super) async fn start(&self, unit: &Unit) -> zbus::Result<()> {
        let none: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        self.call("StartTransientUnit", &(&unit.name, "fail", unit.properties(), none)).await.map(drop)
    }

    /// Queues the end of a unit; none is Ok.
    pub(super) async fn stop(&self, name: &str) -> zbus::Result<()> {
        absent_is_ok(self.call("StopUnit", &(name, "replace")).await)
    }

    /// Forgets that a unit failed, so that it is collected; none is Ok.
    pub(super) async fn reset_failed(&self, name: &str) -> zbus::Result<()> {
        absent_is_ok(self.call("ResetFailedUnit", &(name,)).await)
    }

    /// What it says of a unit; none when it knows of none.
    pub(super) async fn state(&self, name: &str) -> zbus::Result<Option<State>> {
        let found = async {
            let path: OwnedObjectPath = self.call("GetUnit", &(name,)).await?.body().deserialize()?;
            Ok(State {
                active: text(&self.connection, path.as_str(), UNIT, "ActiveState").await?,
                description: text(&self.connection, path.as_str(), UNIT, "Description").await?,
            })
        };
        match found.await {
            Ok(state) => Ok(Some(state)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The programs that units of links run.
    pub(super) async fn programs(&self) -> zbus::Result<Vec<PathBuf>> {
        let none: Vec<&str> = Vec::new();
        let listed = self.call("ListUnitsByPatterns", &(none, vec![PATTERN])).await?;
        let rows: Vec<Listed> = listed.body().deserialize()?;
        let mut programs = Vec::new();
        for row in rows {
            let value = property(&self.connection, row.6.as_str(), SERVICE, "ExecStart").await?;
            let commands = Vec::<ExecStatus>::try_from(value)?;
            programs.extend(commands.into_iter().map(|command| PathBuf::from(command.0)));
        }
        Ok(programs)
    }
}

async fn property(
    connection: &Connection,
    path: &str,
    interface: &str,
    name: &str,
) -> zbus::Result<OwnedVariant> {
    let properties = Some("org.freedesktop.DBus.Properties");
    let answer = connection.call_method(Some(NAME), path, properties, "Get", &(interface, name)).await?;
    answer.body().deserialize()
}

async fn text(connection: &Connection, path: &str, interface: &str, name: &str) -> zbus::Result<String> {
    String::try_from(property(connection, path, interface, name).await?)
}

fn is_nobody(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | ConnectionRefused | PermissionDenied)
}

/// Whether the manager answered with this error of its own.
pub(super) fn is_error(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(found, ..) if found.as_str() == name)
}

fn is_absent(error: &zbus::Error) -> bool {
    // The second: it was collected between two questions about it.
    ["org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.DBus.Error.UnknownObject"]
        .iter()
        .any(|name| is_error(error, name))
}

fn absent_is_ok(answer: zbus::Result<Message>) -> zbus::Result<()> {
    match answer {
        Err(error) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}
