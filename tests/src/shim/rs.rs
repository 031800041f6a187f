//! runtime-rs' hypervisor client (`crates/hypervisor/src/remote`): one connection, kept for the sandbox's life and never dialled again;
//! CreateVM without a deadline, StartVM with 10,000 s, StopVM with one second, whose failure is ignored.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use peerpods_proto::ttrpc::hypervisor::{StopVMResponse, VersionRequest, VersionResponse};

use super::go::{GoShim, STOP_VM, VERSION, stop_request};
use super::wire::{CallError, Connection};

/// Milliseconds for other hypervisors, taken for seconds by the remote one.
pub const START_DEADLINE: Duration = Duration::from_secs(10_000);
/// What StopVM gets.
pub const STOP_DEADLINE: Duration = Duration::from_secs(1);
/// A call that does nothing takes a millisecond or two. One that takes this long waited for a processor.
const SLOW: Duration = Duration::from_millis(300);
/// `google.rpc.Code`: the service saw the deadline pass before we did.
const DEADLINE_EXCEEDED: i32 = 4;

/// A client with one connection.
pub struct RsShim {
    connection: Connection,
    socket: PathBuf,
}

impl RsShim {
    /// Connects, for good.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn connect(socket: PathBuf) -> Result<Self, CallError> {
        Ok(Self { connection: Connection::dial(&socket).await?, socket })
    }

    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The connection, to do something to it.
    #[must_use]
    pub fn into_connection(self) -> Connection {
        self.connection
    }

    /// StopVM; once more when the first was late and [`lateness_is_the_machines`].
    ///
    /// # Errors
    /// The service's own, or that it took longer than a second.
    pub async fn stop(&self, id: &str) -> ttrpc::Result<()> {
        match self.stop_once(id).await {
            Err(error) if lateness_is_the_machines(&error, &self.socket).await => {
                Ok(self.stop_once(id).await?)
            }
            answer => Ok(answer?),
        }
    }

    async fn stop_once(&self, id: &str) -> Result<(), CallError> {
        let within = Some(STOP_DEADLINE);
        self.connection.call::<StopVMResponse>(STOP_VM, &stop_request(id), within).await.map(drop)
    }

    /// Version, which shims never ask for.
    ///
    /// # Errors
    /// The service's own.
    pub async fn version(&self) -> ttrpc::Result<String> {
        let within = Some(Duration::from_secs(5));
        let answer: VersionResponse = self.connection.call(VERSION, &VersionRequest::new(), within).await?;
        Ok(answer.version)
    }
}

/// Whether a call's deadline passed because the machine is busy, which says nothing about the service: Version on a connection of its own
/// takes long, too. The caller may try once more; a service that is late itself is late again.
pub async fn lateness_is_the_machines(error: &CallError, socket: &Path) -> bool {
    let late = matches!(error, CallError::Deadline(_) | CallError::Status { code: DEADLINE_EXCEEDED, .. });
    if !late {
        return false;
    }
    let began = Instant::now();
    drop(GoShim::new(socket.to_owned()).version().await);
    began.elapsed() > SLOW
}
