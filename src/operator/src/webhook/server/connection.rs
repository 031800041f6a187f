//! One connection: handshake, requests, an end in good order. Nobody holds one without asking something.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::respond::respond;
use super::tls::HTTP2;
use super::{Limits, Webhooks};

/// Bytes of a request's head.
const HEAD: usize = 64 << 10;
/// How often an idle HTTP/2 peer is asked whether it lives, and how long it may take to say so.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
const ALIVE_WITHIN: Duration = Duration::from_secs(20);

/// What all connections share.
pub(super) struct Connections {
    pub(super) tls: TlsAcceptor,
    /// One permit a KiB of body.
    pub(super) bodies: Arc<Semaphore>,
    pub(super) webhooks: Arc<Webhooks>,
    pub(super) limits: Limits,
    /// No further requests.
    pub(super) ending: CancellationToken,
    /// No further answers either.
    pub(super) over: CancellationToken,
}

impl Connections {
    pub(super) async fn serve(self: Arc<Self>, stream: TcpStream) {
        // Answers are small and awaited.
        let _slower = stream.set_nodelay(true);
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(self.limits.handshake, self.tls.accept(stream)) => accepted,
            () = self.ending.cancelled() => return,
        };
        let stream = match accepted {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return debug!(error = %e, "webhook connection: no TLS"),
            Err(_) => return debug!("webhook connection: the handshake took too long"),
        };
        let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_fn(|request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            let shared = self.clone();
            async move {
                Ok::<_, Infallible>(respond(&shared.webhooks, &shared.bodies, &shared.limits, request).await)
            }
        });
        let builder = self.http(http2);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        // hyper bounds the time until the next head, but not the time before an HTTP/2 peer says anything.
        let mut silence = pin!(tokio::time::sleep(self.limits.head));
        let (mut listening, mut ending) = (true, false);
        loop {
            tokio::select! {
                done = connection.as_mut() => {
                    if let Err(e) = done {
                        debug!(error = %e, "webhook connection");
                    }
                    return;
                }
                () = silence.as_mut(), if listening => {
                    listening = false;
                    if !asked.load(Ordering::Relaxed) {
                        return debug!("webhook connection: nothing was asked");
                    }
                }
                () = self.ending.cancelled(), if !ending => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = self.over.cancelled() => return,
            }
        }
    }

    /// The one protocol that was agreed on; hyper guesses otherwise, without bounds.
    fn http(&self, http2: bool) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.idle)
            .max_buf_size(HEAD)
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.streams)
            .max_header_list_size(u32::try_from(HEAD).unwrap_or(u32::MAX))
            .keep_alive_interval(ALIVE_EVERY)
            .keep_alive_timeout(ALIVE_WITHIN);
        if http2 { builder.http2_only() } else { builder.http1_only() }
    }
}
