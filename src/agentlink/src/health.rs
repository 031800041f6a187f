//! One `grpc.Health/Check` over a stream: the question whether the agent answers. It knows nothing of sockets or TLS.

use std::io;

use peerpods_proto::ttrpc::envelope::{Request, Response};
use peerpods_proto::ttrpc::health::{
    CheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};
use protobuf::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::frame::{FrameError, HEADER_LEN, Header, Kind};

/// Far more than a status with details; a longer answer is no answer to our question.
const MAX_ANSWER: usize = 64 * 1024;

/// Why the agent did not say that it serves.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HealthError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the answer to Health.Check cannot be read")]
    Answer(#[from] protobuf::Error),
    #[error("Health.Check was answered by a {kind:?} frame of {length} bytes on stream {stream}")]
    Unexpected { kind: Kind, length: usize, stream: u32 },
    #[error("Health.Check failed with code {code}: {message:?}")]
    Refused { code: i32, message: String },
    #[error("the agent says that it does not serve yet")]
    NotServing,
}

/// Asks once. The stream must carry nothing else; it is not closed.
pub(crate) async fn check<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Result<(), HealthError> {
    ask(stream).await?;
    hear(stream).await
}

/// The question alone.
pub(crate) async fn ask<S: AsyncWrite + Unpin>(stream: &mut S) -> Result<(), HealthError> {
    let request = Request {
        service: "grpc.Health".to_owned(),
        method: "Check".to_owned(),
        payload: CheckRequest::new().write_to_bytes()?,
        ..Request::default()
    };
    let payload = request.write_to_bytes()?;
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let header = Header { length, stream: 1, kind: Kind::Request, flags: 0 };
    stream.write_all(&header.emit()).await?;
    stream.write_all(&payload).await?;
    Ok(stream.flush().await?)
}

/// The answer to [`ask`].
pub(crate) async fn hear<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(), HealthError> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).await?;
    let header = Header::parse(&header)?;
    let length = header.payload_len();
    if header.kind != Kind::Response || header.stream != 1 || length > MAX_ANSWER {
        return Err(HealthError::Unexpected { kind: header.kind, length, stream: header.stream });
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    let response = Response::parse_from_bytes(&payload)?;
    if response.status.code != 0 {
        let message = response.status.message.chars().take(200).collect();
        return Err(HealthError::Refused { code: response.status.code, message });
    }
    let health = HealthCheckResponse::parse_from_bytes(&response.payload)?;
    if health.status.enum_value() == Ok(ServingStatus::SERVING) {
        Ok(())
    } else {
        Err(HealthError::NotServing)
    }
}
