//! One unix socket, two protocols, told apart by the first byte: `P` of HTTP/2's preface `PRI`, or the zero that begins every ttrpc
//! frame (a length of at most 4 MiB, big-endian). The byte is looked at, not taken.

use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::service::Service;

/// A connection that says nothing for so long is closed.
const FIRST_BYTE_BUDGET: Duration = Duration::from_secs(60);
/// Connections that have not said anything yet.
const UNDECIDED_LIMIT: usize = 1024;

/// What a connection's first byte says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Ttrpc,
    Grpc,
}

fn protocol(first: u8) -> Option<Protocol> {
    match first {
        0 => Some(Protocol::Ttrpc),
        b'P' => Some(Protocol::Grpc),
        _ => None,
    }
}

/// Whether a connection that begins so is handed to the gRPC server, for `tests/fuzz`; none when it is closed.
#[cfg(feature = "fuzzing")]
pub(crate) fn speaks_grpc(first: u8) -> Option<bool> {
    protocol(first).map(|protocol| protocol == Protocol::Grpc)
}

/// Serves both protocols on `listener` until `shutdown`.
///
/// # Errors
/// When one of the two servers cannot run.
pub(crate) async fn serve(
    listener: UnixListener,
    service: Service,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let (to_ttrpc, ttrpc_connections) = mpsc::channel::<io::Result<UnixStream>>(16);
    let (to_grpc, grpc_connections) = mpsc::channel::<io::Result<UnixStream>>(16);
    let mut ttrpc = super::ttrpc::server(service.clone(), ReceiverStream::new(ttrpc_connections));
    ttrpc.start().await.map_err(io::Error::other)?;
    let grpc_shutdown = shutdown.clone().cancelled_owned();
    let grpc = super::grpc::router(service)
        .serve_with_incoming_shutdown(ReceiverStream::new(grpc_connections), grpc_shutdown);
    let grpc = async {
        grpc.await.map_err(io::Error::other)?;
        // A server that ended by itself must not look healthy.
        if shutdown.is_cancelled() { Ok(()) } else { Err(io::Error::other("the gRPC server ended")) }
    };
    let both = async { tokio::try_join!(grpc, accept(listener, to_ttrpc, to_grpc, &shutdown)).map(drop) };
    let served = tokio::select! {
        served = both => served,
        () = over(&shutdown) => Ok(()),
    };
    // Waits for answers under way. Not `shutdown`: that first stops its listener, and panics (ttrpc 0.10) when the stream of connections
    // has ended before.
    if tokio::time::timeout(FAREWELL, ttrpc.disconnect()).await.is_err() {
        debug!("a client does not take its answer");
    }
    served
}

/// Requests that are under way at the end get so long, and clients that never close their connections no longer. Connections that are
/// open are served meanwhile.
const GRACE: Duration = Duration::from_secs(2);
/// What ttrpc answers get on top to be taken by their clients.
const FAREWELL: Duration = Duration::from_secs(1);

async fn over(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(GRACE).await;
}

type Connections = mpsc::Sender<io::Result<UnixStream>>;

async fn accept(
    listener: UnixListener,
    to_ttrpc: Connections,
    to_grpc: Connections,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    let undecided = Arc::new(Semaphore::new(UNDECIDED_LIMIT));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return Ok(()),
            () = to_ttrpc.closed() => return Err(io::Error::other("the ttrpc server ended")),
        };
        match accepted {
            Ok((stream, _)) => {
                let Ok(permit) = undecided.clone().try_acquire_owned() else {
                    warn!("too many connections that say nothing; closing the newest");
                    continue;
                };
                let (to_ttrpc, to_grpc) = (to_ttrpc.clone(), to_grpc.clone());
                tokio::spawn(async move {
                    sort(stream, &to_ttrpc, &to_grpc).await;
                    drop(permit);
                });
            }
            Err(e) => {
                // Out of descriptors, as a rule: whoever holds them must get a chance to let go.
                warn!(error = %e, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn sort(stream: UnixStream, to_ttrpc: &Connections, to_grpc: &Connections) {
    let first = match tokio::time::timeout(FIRST_BYTE_BUDGET, first_byte(&stream)).await {
        Ok(Ok(Some(first))) => first,
        Ok(Ok(None)) => return,
        Ok(Err(e)) => return debug!(error = %e, "connection lost before its first byte"),
        Err(_) => return debug!("connection closed: it said nothing"),
    };
    let sent = match protocol(first) {
        Some(Protocol::Ttrpc) => to_ttrpc.send(Ok(stream)).await,
        Some(Protocol::Grpc) => to_grpc.send(Ok(stream)).await,
        None => return warn!(first, "connection closed: neither ttrpc nor gRPC"),
    };
    if sent.is_err() {
        debug!("connection closed: the service is going down");
    }
}

/// The first byte without taking it; `None` when the peer closed.
pub(crate) async fn first_byte(stream: &UnixStream) -> io::Result<Option<u8>> {
    let mut byte = [0_u8; 1];
    let seen = stream.async_io(Interest::READABLE, || {
        recv(stream.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)
            .map_err(io::Error::from)
    });
    Ok((seen.await? == 1).then_some(byte[0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    #[test]
    fn only_the_two_protocols_are_recognised() {
        assert_eq!(protocol(0), Some(Protocol::Ttrpc));
        assert_eq!(protocol(b'P'), Some(Protocol::Grpc));
        assert!((1..=u8::MAX).filter(|b| *b != b'P').all(|b| protocol(b).is_none()));
    }

    #[tokio::test]
    async fn looking_at_the_first_byte_leaves_it_there() {
        let (a, mut b) = UnixStream::pair().unwrap();
        b.write_all(b"PRI").await.unwrap();
        assert_eq!(first_byte(&a).await.unwrap(), Some(b'P'));
        assert_eq!(first_byte(&a).await.unwrap(), Some(b'P'));
        let (c, d) = UnixStream::pair().unwrap();
        drop(d);
        assert_eq!(first_byte(&c).await.unwrap(), None);
    }
}
