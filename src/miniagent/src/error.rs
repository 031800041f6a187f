//! Everything a call to the agent can fail with, and the status code each has on the wire.

use std::path::PathBuf;

use ttrpc::Code;

use crate::cgroup::CgroupError;
use crate::convert::ConvertError;
use crate::copy_file::CopyFileError;
use crate::namespaces::NamespaceError;
use crate::process::ProcessError;
use crate::stdio::StdioError;
use crate::storage::StorageError;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// An id that could leave the directories it names.
    #[error(
        "{shown:?} is no container id: 1 to 128 letters, digits, '_', '.' and '-', beginning with a letter or digit"
    )]
    BadId {
        /// The id, cut to a length fit for a message.
        shown: String,
    },
    /// No container of this id.
    #[error("no container {id}")]
    UnknownContainer {
        /// The id asked for.
        id: String,
    },
    /// No such process in the container.
    #[error("no process {exec:?} in container {id}")]
    UnknownProcess {
        /// The container.
        id: String,
        /// The process asked for.
        exec: String,
    },
    /// The id is taken, by a container or a process in it.
    #[error("{what} {id} exists already")]
    Exists {
        /// "container" or "process".
        what: &'static str,
        /// The id.
        id: String,
    },
    /// A field the call cannot do without.
    #[error("the request has no {what}")]
    Missing {
        /// The field.
        what: &'static str,
    },
    /// The root directory of the container is not there.
    #[error("root directory {path:?} of container {id} is not an existing absolute directory")]
    NoRootfs {
        /// The container.
        id: String,
        /// The directory asked for.
        path: PathBuf,
    },
    /// A signal without a name.
    #[error("{number} is no signal")]
    BadSignal {
        /// The number asked for.
        number: u32,
    },
    /// Processes outlived the time the caller gave.
    #[error("container {id} still had processes after {seconds} s")]
    StillRunning {
        /// The container.
        id: String,
        /// The time given.
        seconds: u32,
    },
    /// The sandbox is being destroyed.
    #[error("the sandbox is ending")]
    Ending,
    /// A task of ours died.
    #[error("the agent's own task for this call died")]
    Task(#[from] tokio::task::JoinError),
    /// Something of the VM could not be read or set.
    #[error("cannot {what}")]
    Guest {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The OCI description cannot be carried out.
    #[error("container description")]
    Convert(#[from] ConvertError),
    /// A storage could not be set up.
    #[error("storage")]
    Storage(#[from] StorageError),
    /// A cgroup could not be set up.
    #[error("cgroup")]
    Cgroup(#[from] CgroupError),
    /// The sandbox's shared namespaces could not be made.
    #[error("sandbox namespaces")]
    Namespaces(#[from] NamespaceError),
    /// A process could not be started.
    #[error("process")]
    Process(#[from] ProcessError),
    /// A stream could not be read or written.
    #[error("stream")]
    Stdio(#[from] StdioError),
    /// A file could not be copied in.
    #[error("copy of a file")]
    CopyFile(#[from] CopyFileError),
}

impl AgentError {
    /// The status code on the wire. The shims look at NOT_FOUND only; the rest is for people.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::UnknownProcess { .. } => Code::NOT_FOUND,
            Self::Process(error) if error.is_program_not_found() => Code::NOT_FOUND,
            Self::Exists { .. } => Code::ALREADY_EXISTS,
            Self::StillRunning { .. } => Code::DEADLINE_EXCEEDED,
            Self::Ending => Code::UNAVAILABLE,
            Self::BadId { .. }
            | Self::UnknownContainer { .. }
            | Self::Missing { .. }
            | Self::NoRootfs { .. }
            | Self::BadSignal { .. }
            | Self::Convert(_) => Code::INVALID_ARGUMENT,
            Self::Storage(error) if error.is_request_fault() => Code::INVALID_ARGUMENT,
            Self::CopyFile(error) if error.is_request_fault() => Code::INVALID_ARGUMENT,
            Self::Stdio(error) if error.is_request_fault() => Code::INVALID_ARGUMENT,
            Self::Task(_)
            | Self::Guest { .. }
            | Self::Storage(_)
            | Self::Cgroup(_)
            | Self::Namespaces(_)
            | Self::Process(_)
            | Self::Stdio(_)
            | Self::CopyFile(_) => Code::INTERNAL,
        }
    }

    /// The status on the wire: the code, and the whole chain of causes as one line.
    #[must_use]
    pub fn to_status(&self) -> ttrpc::Error {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        ttrpc::Error::RpcStatus(ttrpc::get_status(self.code(), text))
    }
}

/// Refuses a container id that could leave the directories it names.
///
/// # Errors
/// [`AgentError::BadId`].
pub fn check_id(id: &str) -> Result<(), AgentError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let begins_well = id.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins_well && id.len() <= 128 && id.chars().all(allowed) {
        return Ok(());
    }
    Err(AgentError::BadId { shown: id.chars().take(64).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_would_leave_their_directory_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "a b", &"a".repeat(129)] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "sb-1", "0123456789abcdef", "x.y_z"] {
            assert!(check_id(good).is_ok(), "{good:?}");
        }
    }
}
