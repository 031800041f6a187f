//! What a caller of the service can be told went wrong, and the one table that turns it into an RPC status.

use std::fmt;
use std::time::Duration;

use peerpods_agentlink::LinkError;
use peerpods_podnet::TunnelError;
use peerpods_podvm::SandboxId;
use peerpods_podvm::causes::chain;
use peerpods_provider::{ErrorKind, ProviderError};

use crate::capacity::Full;
use crate::creation::{Advice, Attempts, GaveUp};
use crate::journal::JournalError;

/// Why a request could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The request itself is wrong; nothing was done.
    #[error("{0}")]
    Invalid(String),
    /// Nobody made this sandbox, or it is gone.
    #[error(
        "sandbox {0} is not known here; it was never created, or it was stopped or unwound (CreateVM makes a new one)"
    )]
    Unknown(SandboxId),
    /// The sandbox exists and was made from another request.
    #[error(
        "sandbox {0} exists already and was created with other parameters; stop it first, or use another id"
    )]
    Conflict(SandboxId),
    /// The sandbox is in a state in which this cannot be done.
    #[error("sandbox {sandbox}: {reason}")]
    Denied {
        /// The sandbox.
        sandbox: SandboxId,
        /// Why not now.
        reason: String,
    },
    /// The pod's network could not be read or the tunnel not be laid.
    #[error("network of sandbox {sandbox}")]
    Network {
        /// The sandbox.
        sandbox: SandboxId,
        /// What failed.
        #[source]
        source: Box<TunnelError>,
    },
    /// The provider could not make the VM.
    #[error("VM of sandbox {sandbox}")]
    Provider {
        /// The sandbox.
        sandbox: SandboxId,
        /// What failed.
        #[source]
        source: Box<ProviderError>,
    },
    /// The provider was asked more than once, and there is no VM.
    #[error("VM of sandbox {sandbox}: {attempts}, and {why}{advice}; the last one")]
    Creation {
        /// The sandbox.
        sandbox: SandboxId,
        /// What was tried.
        attempts: Attempts,
        /// Why no more of it.
        why: GaveUp,
        /// What to do about it, when the last error does not say.
        advice: Advice,
        /// How the last attempt failed.
        #[source]
        source: Box<ProviderError>,
    },
    /// This node has as many VMs as it may have.
    #[error("sandbox {sandbox} gets no VM: {full}")]
    Limit {
        /// The sandbox.
        sandbox: SandboxId,
        /// The limit, and who has the VMs.
        full: Full,
    },
    /// The link to the agent could not be made.
    #[error("agent link of sandbox {sandbox}{console}")]
    Link {
        /// The sandbox.
        sandbox: SandboxId,
        /// The VM's last words, when they are known.
        console: ConsoleTail,
        /// What failed.
        #[source]
        source: Box<LinkError>,
    },
    /// The VM stopped by itself.
    #[error("VM {vm} of sandbox {sandbox} stopped by itself{during}{why}{console}")]
    VmDied {
        /// The sandbox.
        sandbox: SandboxId,
        /// The provider's id of the VM.
        vm: String,
        /// ` while starting`, or nothing.
        during: &'static str,
        /// What the provider says ended it.
        why: Why,
        /// Its last words.
        console: ConsoleTail,
    },
    /// The start took longer than its budget.
    #[error(
        "sandbox {sandbox} was not up within {budget:?} (PROXY_TIMEOUT); it got as far as: {reached}{console}"
    )]
    Deadline {
        /// The sandbox.
        sandbox: SandboxId,
        /// The budget.
        budget: Duration,
        /// The phase it was in.
        reached: String,
        /// The VM's last words, when they are known.
        console: ConsoleTail,
    },
    /// The start was called off.
    #[error("the start of sandbox {sandbox} was called off: {by}")]
    Cancelled {
        /// The sandbox.
        sandbox: SandboxId,
        /// By what.
        by: &'static str,
    },
    /// A key or certificate could not be made.
    #[error("certificate for sandbox {sandbox}")]
    Certificate {
        /// The sandbox.
        sandbox: SandboxId,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This node's disk did not take the record; nothing was done after it.
    #[error("record of sandbox {sandbox}")]
    Journal {
        /// The sandbox.
        sandbox: SandboxId,
        /// What failed.
        #[source]
        source: JournalError,
    },
    /// The provider is not usable, or has not said yet that it is.
    #[error("no VM can be made: {0}; it is asked again every minute at least (running pods go on meanwhile)")]
    NotReady(String),
    /// What an earlier run of the service recorded as the reason.
    #[error("{0}")]
    Recorded(String),
    /// The service is going down.
    #[error("the service is shutting down")]
    ShuttingDown,
}

/// What the provider says of a VM's end, for the end of an error text; nothing when it says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why(pub Option<String>);

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

/// The last lines of a VM's console, for an error text; empty when there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsoleTail(pub Option<String>);

impl fmt::Display for ConsoleTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(text) => write!(f, "; the VM's console ends with: {text}"),
            None => Ok(()),
        }
    }
}

/// The status codes both RPC protocols share (google.rpc.Code), as far as we use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum StatusCode {
    /// The caller gave up, or a Stop came.
    Cancelled = 1,
    /// The request can never succeed as it is.
    InvalidArgument = 3,
    /// It took too long.
    DeadlineExceeded = 4,
    /// No such sandbox.
    NotFound = 5,
    /// The sandbox exists with other parameters.
    AlreadyExists = 6,
    /// The provider's credentials do not allow it.
    PermissionDenied = 7,
    /// A limit, a quota or the provider's capacity is reached.
    ResourceExhausted = 8,
    /// Not in this state, or the pod's network is not there.
    FailedPrecondition = 9,
    /// This node is at fault.
    Internal = 13,
    /// May succeed when tried again.
    Unavailable = 14,
}

impl Failure {
    /// The one table from failure to status.
    #[must_use]
    pub fn code(&self) -> StatusCode {
        match self {
            Failure::Invalid(_) => StatusCode::InvalidArgument,
            Failure::Unknown(_) => StatusCode::NotFound,
            Failure::Conflict(_) => StatusCode::AlreadyExists,
            Failure::Denied { .. } => StatusCode::FailedPrecondition,
            Failure::Network { source, .. } if matches!(**source, TunnelError::Kernel { .. }) => {
                StatusCode::Internal
            }
            Failure::Network { .. } => StatusCode::FailedPrecondition,
            Failure::Provider { source, .. } | Failure::Creation { source, .. } => provider_code(source.kind),
            Failure::Limit { .. } => StatusCode::ResourceExhausted,
            Failure::Link { source, .. } => link_code(source),
            Failure::Deadline { .. } => StatusCode::DeadlineExceeded,
            Failure::VmDied { .. } | Failure::NotReady(_) | Failure::Recorded(_) | Failure::ShuttingDown => {
                StatusCode::Unavailable
            }
            Failure::Cancelled { .. } => StatusCode::Cancelled,
            Failure::Certificate { .. } | Failure::Journal { .. } => StatusCode::Internal,
        }
    }

    /// The whole chain of causes as one line, for the caller. Printed here and nowhere else.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }
}

fn link_code(error: &LinkError) -> StatusCode {
    match error {
        LinkError::Deadline { .. } => StatusCode::DeadlineExceeded,
        LinkError::Untrusted { .. } => StatusCode::PermissionDenied,
        LinkError::Start { .. }
        | LinkError::Unit { .. }
        | LinkError::Unreachable { .. }
        | LinkError::Unsupported { .. }
        | LinkError::Protocol { .. } => StatusCode::Internal,
    }
}

fn provider_code(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Transient => StatusCode::Unavailable,
        ErrorKind::Throttled | ErrorKind::Capacity | ErrorKind::Quota => StatusCode::ResourceExhausted,
        ErrorKind::Denied => StatusCode::PermissionDenied,
        ErrorKind::Invalid => StatusCode::InvalidArgument,
        ErrorKind::NotFound => StatusCode::FailedPrecondition,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_names_the_sandbox_the_operation_and_the_cause_once() {
        let source = ProviderError::new(ErrorKind::Quota, "create VM podvm-web-1", "no address left")
            .hint("enlarge the subnet")
            .caused_by(std::io::Error::other("subnet 10.0.0.0/30 is full"));
        let failure = Failure::Provider { sandbox: "abc".parse().unwrap(), source: source.into() };
        assert_eq!(
            failure.chain(),
            "VM of sandbox abc: create VM podvm-web-1 failed (quota): no address left; try: enlarge the subnet: \
             subnet 10.0.0.0/30 is full"
        );
        assert_eq!(failure.code(), StatusCode::ResourceExhausted);
    }
}
