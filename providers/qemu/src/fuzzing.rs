//! The doors of `tests/fuzz` to what is private here: the same code, no behaviour of its own.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

/// Greets and asks `query-status` once: the answer, and whether the guest is taken to live by it.
///
/// # Errors
/// Why there is no answer.
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    patience: Duration,
) -> Result<(Value, bool), String> {
    let mut qmp = crate::qmp::Qmp::handshake(stream, patience).await.map_err(text)?;
    let answer = qmp.command("query-status").await.map_err(text)?;
    let lives = crate::qmp::lives(&answer);
    Ok((answer, lives))
}

/// What a VM's record says it holds: its address and bridge.
#[must_use]
pub fn holding(bytes: &[u8]) -> (Option<Ipv4Addr>, Option<String>) {
    let holding = crate::holding::Holding::of(Path::new("record"), bytes);
    (holding.address, holding.bridge)
}

/// A VM's record, written again.
///
/// # Errors
/// Why it cannot be read.
pub fn record(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let record = crate::record::parse(bytes).map_err(text)?;
    serde_json::to_vec_pretty(&record).map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
