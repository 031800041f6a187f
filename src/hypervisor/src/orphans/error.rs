//! Why a VM was not listed, deleted or adopted.

use std::sync::Arc;

use peerpods_podvm::SandboxId;
use peerpods_provider::ProviderError;

use crate::failure::{Failure, StatusCode};

/// Why a request about a VM could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrphanError {
    /// The provider could not be asked.
    #[error("the VMs of this cluster could not be listed")]
    List(#[source] Box<ProviderError>),
    /// The provider took too long.
    #[error("the provider did not list the VMs of this cluster within {0:?}; try again")]
    Slow(std::time::Duration),
    /// There is no such VM.
    #[error(
        "the provider has no VM {id}, and none of a sandbox {id}, in this cluster; `peerpods gc list` shows those there are"
    )]
    NotFound {
        /// What was asked for.
        id: String,
    },
    /// Somebody owns it, or may.
    #[error("VM {vm} of sandbox {sandbox}: {reason}")]
    Refused {
        /// The sandbox.
        sandbox: SandboxId,
        /// The provider's id of the VM.
        vm: String,
        /// Who owns it, and what to do.
        reason: String,
    },
    /// What is known does not make a record.
    #[error("sandbox {sandbox} cannot be adopted: {missing}")]
    Missing {
        /// The sandbox.
        sandbox: SandboxId,
        /// What is missing, and where it can be found.
        missing: String,
    },
    /// The service could not take it.
    #[error(transparent)]
    Failure(#[from] Arc<Failure>),
}

impl OrphanError {
    /// The RPC status.
    #[must_use]
    pub fn code(&self) -> StatusCode {
        match self {
            Self::List(_) | Self::Slow(_) => StatusCode::Unavailable,
            Self::NotFound { .. } => StatusCode::NotFound,
            Self::Refused { .. } => StatusCode::FailedPrecondition,
            Self::Missing { .. } => StatusCode::InvalidArgument,
            Self::Failure(failure) => failure.code(),
        }
    }
}
