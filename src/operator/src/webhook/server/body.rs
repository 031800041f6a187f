//! A request's body, within its limit, its time, and the room that all bodies share.

use std::sync::Arc;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::{Body as _, Bytes, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Limits;

/// How much beyond its limit a body is read and thrown away, so that its sender reads the answer and not a broken connection.
const DRAINED: u64 = 4;

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body is larger than {0} bytes, which is more than the API server sends for one object")]
    TooLarge(usize),
    #[error("the body did not arrive in time")]
    TooSlow,
    #[error("the body broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("too many requests")]
    Busy,
}

impl BodyError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A body and the room it takes, given back when dropped.
pub(super) struct Held {
    pub(super) bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Reads a body whole.
pub(super) async fn read(body: Incoming, room: &Arc<Semaphore>, limits: &Limits) -> Result<Held, BodyError> {
    let reading = tokio::time::timeout(limits.body_time, read_within(body, room, limits.body));
    reading.await.unwrap_or(Err(BodyError::TooSlow))
}

async fn read_within(body: Incoming, room: &Arc<Semaphore>, limit: usize) -> Result<Held, BodyError> {
    let declared = body.size_hint().upper();
    if declared.is_some_and(|bytes| bytes > limit as u64) {
        drain(body, limit).await;
        return Err(BodyError::TooLarge(limit));
    }
    let bytes = declared.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(limit);
    let permits = u32::try_from((bytes >> 10) + 1).unwrap_or(u32::MAX);
    // The semaphore is never closed.
    let _room = room.clone().acquire_many_owned(permits).await.map_err(|_| BodyError::Busy)?;
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(Held { bytes: collected.to_bytes(), _room }),
        Err(error) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge(limit)),
        Err(error) => Err(BodyError::Broken(error)),
    }
}

async fn drain(mut body: Incoming, limit: usize) {
    let mut left = DRAINED * limit as u64;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        match left.checked_sub(bytes) {
            Some(less) => left = less,
            None => return,
        }
    }
}
