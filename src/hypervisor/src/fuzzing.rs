//! The doors of `tests/fuzz` to what is private here: the same code, no behaviour of its own.

use std::collections::HashMap;

use peerpods_podvm::SandboxId;
use tokio::net::UnixStream;

use crate::Ask;
use crate::journal::Salvaged;
use crate::record::Record;

/// The first byte without taking it; none when the peer closed.
///
/// # Errors
/// When the connection is lost.
pub async fn first_byte(stream: &UnixStream) -> std::io::Result<Option<u8>> {
    crate::rpc::first_byte(stream).await
}

/// Whether a connection that begins with this byte speaks gRPC; none when it speaks neither protocol.
#[must_use]
pub fn speaks_grpc(first: u8) -> Option<bool> {
    crate::rpc::speaks_grpc(first)
}

/// CreateVM's fields, checked.
///
/// # Errors
/// What the shim is told.
pub fn ask(id: &str, annotations: &HashMap<String, String>, netns: &str) -> Result<Ask, String> {
    crate::rpc::ask(id, annotations, netns).map_err(|failure| failure.chain())
}

/// A record's file, understood.
///
/// # Errors
/// Why it makes no sense.
pub fn record(bytes: &[u8]) -> Result<Record, String> {
    crate::journal::record_of(bytes)
}

/// A record as its file is written.
///
/// # Errors
/// Never, for what was read.
pub fn file(record: &Record) -> Result<Vec<u8>, String> {
    crate::journal::file_of(record)
}

/// What a file that makes no sense still tells.
#[must_use]
pub fn salvaged(bytes: &[u8], sandbox: SandboxId) -> Salvaged {
    crate::journal::salvaged(bytes, sandbox)
}

/// The last words of a console, as errors quote them.
#[must_use]
pub fn console(bytes: &[u8]) -> String {
    crate::driver::console_end(bytes)
}
