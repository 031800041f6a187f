//! runtime-rs' hypervisor client (`crates/hypervisor/src/remote`): one connection, kept for the sandbox's life and never dialled again;
//! CreateVM without a deadline, StartVM with 10,000 s, StopVM with one second, whose failure is ignored.

use std::path::{Path, PathBuf};
use std::time::Duration;

use peerpods_proto::ttrpc::hypervisor::{StopVMResponse, VersionRequest, VersionResponse};

use super::go::{STOP_VM, VERSION, stop_request};
use super::wire::{CallError, Connection};

/// Milliseconds for other hypervisors, taken for seconds by the remote one.
pub const START_DEADLINE: Duration = Duration::from_secs(10_000);
/// What StopVM gets.
pub const STOP_DEADLINE: Duration = Duration::from_secs(1);

/// A client with one connection.
pub struct RsShim(Connection);

impl RsShim {
    /// Connects, for good.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn connect(socket: PathBuf) -> Result<Self, CallError> {
        Ok(Self(Connection::dial(Path::new(&socket)).await?))
    }

    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.0
    }

    /// The connection, to do something to it.
    #[must_use]
    pub fn into_connection(self) -> Connection {
        self.0
    }

    /// StopVM.
    ///
    /// # Errors
    /// The service's own, or that it took longer than a second.
    pub async fn stop(&self, id: &str) -> ttrpc::Result<()> {
        let answer: Result<StopVMResponse, _> =
            self.0.call(STOP_VM, &stop_request(id), Some(STOP_DEADLINE)).await;
        Ok(answer.map(drop)?)
    }

    /// Version, which shims never ask for.
    ///
    /// # Errors
    /// The service's own.
    pub async fn version(&self) -> ttrpc::Result<String> {
        let within = Some(Duration::from_secs(5));
        let answer: VersionResponse = self.0.call(VERSION, &VersionRequest::new(), within).await?;
        Ok(answer.version)
    }
}
