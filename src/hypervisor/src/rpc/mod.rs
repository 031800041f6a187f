//! The shim's API on one socket in two protocols, and the admin API beside it. Adapters parse, hand over, and answer; they decide
//! nothing.

mod admin;
mod grpc;
mod mux;
mod ttrpc;
mod vms;

use std::collections::HashMap;

use peerpods_podvm::SandboxId;
use peerpods_podvm::annotations::PodRequest;

pub(crate) use mux::serve;
#[cfg(feature = "fuzzing")]
pub(crate) use mux::{first_byte, speaks_grpc};

use crate::driver::Ask;
use crate::failure::Failure;

/// Our version, as `Version` answers it.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

fn sandbox_id(id: &str) -> Result<SandboxId, Failure> {
    id.parse().map_err(|e: peerpods_podvm::IdError| Failure::Invalid(e.to_string()))
}

/// CreateVM's fields as one checked value. Every fault is named at once.
pub(crate) fn ask(id: &str, annotations: &HashMap<String, String>, netns: &str) -> Result<Ask, Failure> {
    let sandbox = sandbox_id(id)?;
    let request = PodRequest::from_annotations(annotations)
        .map_err(|e| Failure::Invalid(format!("annotations of sandbox {sandbox}: {e}")))?;
    Ok(Ask { sandbox, request, netns: netns.into() })
}
