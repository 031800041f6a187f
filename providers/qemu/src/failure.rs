//! What can go wrong on this host, and which of the seven kinds it is.

use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use nix::libc;
use peerpods_provider::{ErrorKind, ProviderError};

use crate::image::ImageError;

/// One failure, named by what failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot {doing} {path}")]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("the record {path} cannot be read")]
    Record { path: PathBuf, source: serde_json::Error },
    #[error("the record {path} belongs to another VM, {owner}")]
    RecordTaken { path: PathBuf, owner: String },
    #[error("cannot {doing} {link}")]
    Link { doing: &'static str, link: String, source: Box<dyn Error + Send + Sync> },
    #[error("a network device {bridge} exists and was not made by us for {address}")]
    ForeignBridge { bridge: String, address: Ipv4Addr },
    #[error("all {room} addresses of {subnet} are taken")]
    SubnetFull { subnet: Ipv4Net, room: u64 },
    #[error("{asked} MiB were asked for, {free} MiB are free on this host")]
    NoMemory { asked: u64, free: u64 },
    #[error("the image cannot be used")]
    Image(#[source] ImageError),
    #[error("{0}")]
    Refused(String),
    #[error("{program} cannot be run")]
    Program { program: PathBuf, source: io::Error },
    #[error("QEMU did not start: {said}")]
    Start { said: String },
    #[error("process {pid} outlives SIGKILL")]
    Immortal { pid: i32 },
    #[error("whoever asked is gone; nothing was done")]
    Abandoned,
    #[error("a task of ours ended early")]
    Task(#[source] tokio::task::JoinError),
}

impl Failure {
    /// For `map_err` on a file operation.
    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { doing, path: path.to_owned(), source }
    }

    /// For `map_err` on a network device operation.
    pub(crate) fn link<E: Error + Send + Sync + 'static>(
        doing: &'static str,
        link: &str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Link { doing, link: link.to_owned(), source: Box::new(source) }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Image(_) | Self::Refused(_) | Self::ForeignBridge { .. } | Self::RecordTaken { .. } => {
                ErrorKind::Invalid
            }
            Self::SubnetFull { .. } => ErrorKind::Quota,
            Self::NoMemory { .. } => ErrorKind::Capacity,
            Self::Program { source, .. } if source.kind() == io::ErrorKind::NotFound => ErrorKind::Invalid,
            Self::File { source, .. } | Self::Program { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                ErrorKind::Denied
            }
            _ => ErrorKind::Transient,
        }
    }

    /// What becomes of a failure to read one of many records: a line in the log, unless it tells nothing of that record.
    pub(crate) fn passed_over(self, consequence: &str) -> Result<(), Self> {
        if let Self::File { source, .. } = &self
            && matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
        {
            return Err(self);
        }
        let cause = self.source().map(ToString::to_string);
        tracing::warn!(error = %self, cause, consequence, "a VM's record is passed over");
        Ok(())
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Record { .. } => {
                Some("delete the VM, which needs no readable record, or run the version that wrote it")
            }
            Self::ForeignBridge { .. } => Some("choose another name in qemu.bridge, or remove the device"),
            Self::SubnetFull { .. } => Some("configure a larger qemu.subnet"),
            Self::NoMemory { .. } => Some("ask for less memory, or run the pod on another node"),
            Self::Image(_) => Some("peerpods image build --target qemu"),
            Self::Program { .. } => Some("apt-get install qemu-system-x86, or set qemu.program"),
            _ => None,
        }
    }

    /// As the provider's error about `operation`.
    pub(crate) fn into_provider(self, operation: impl Into<String>) -> ProviderError {
        let mut error = ProviderError::new(self.kind(), operation, self.to_string());
        error.hint = self.hint().map(str::to_owned);
        error.source = self.into_source();
        error
    }

    /// What caused it: its own text is in the message already.
    fn into_source(self) -> Option<Box<dyn Error + Send + Sync>> {
        match self {
            Self::File { source, .. } | Self::Program { source, .. } => Some(Box::new(source)),
            Self::Record { source, .. } => Some(Box::new(source)),
            Self::Link { source, .. } => Some(source),
            Self::Image(source) => Some(Box::new(source)),
            Self::Task(source) => Some(Box::new(source)),
            _ => None,
        }
    }
}
