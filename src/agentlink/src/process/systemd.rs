//! Talking to the host's systemd over D-Bus. Decides nothing; the interface is systemd's `org.freedesktop.systemd1(5)`.
//!
//! It is reached through the system bus. Its own socket, `/run/systemd/private`, would need no bus, but signs its answers with a name that is
//! none a sender may have (`org.freedesktop.systemd1`), and zbus 6 takes no such message.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;
use zbus::connection::Builder;
use zbus::{Connection, DBusError, DynamicType, Message, OwnedObjectPath, OwnedVariant, Variant};

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
    /// The manager behind the bus at `socket`, when it answers within `patience`; else why not.
    pub(super) async fn reach(socket: &Path, patience: Duration) -> Result<Self, String> {
        let reason = match timeout(patience, Self::at(socket)).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {patience:?}"),
        };
        Err(format!("{}: {reason}", socket.display()))
    }

    async fn at(socket: &Path) -> zbus::Result<Self> {
        let stream = UnixStream::connect(socket).await?.into_std()?;
        let connection = Builder::unix_stream(stream).method_timeout(CALL_PATIENCE).build().await?;
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

/// Whether the manager answered with this error. D-Bus' own errors come in a variant of their own.
pub(super) fn is_error(error: &zbus::Error, name: &str) -> bool {
    match error {
        zbus::Error::MethodError(found, ..) => found.as_str() == name,
        zbus::Error::FDO(of_dbus) => of_dbus.name().as_str() == name,
        _ => false,
    }
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
