//! Answering health checks, and showing metrics, over HTTP/1.1: `GET` and `HEAD`, one request a connection, few connections, none for long. Bodies are not read.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use super::{Answer, Check, Detail, Endpoint, answer};

/// Connections at a time. kubelet needs two.
const CONNECTIONS: usize = 16;
/// A connection may take so long, whatever its peer does.
const LIFE: Duration = Duration::from_secs(5);
/// Bytes of a request's head; hyper's own least.
const HEAD: usize = 8192;
/// How long an address that is in use is left alone: as a rule it is held by this program's predecessor, which is about to end.
const RETRY: Duration = Duration::from_secs(2);

/// The form of `/metrics`.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is answered with.
#[derive(Default)]
pub struct Shown {
    /// What is looked at for health.
    pub checks: Vec<Check>,
    /// What is counted.
    pub registry: Registry,
}

/// Answers on `address` until dropped. An address that cannot be had is told and tried again: pods must not suffer because somebody else
/// took a port.
pub async fn serve(address: SocketAddr, shown: Shown) -> Infallible {
    let shown = Arc::new(shown);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let listener = listen(address).await;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match room.clone().try_acquire_owned() {
                Ok(permit) => {
                    let shown = shown.clone();
                    tokio::spawn(async move {
                        one_request(stream, shown).await;
                        drop(permit);
                    });
                }
                Err(_) => debug!("too many health connections; closing the newest"),
            },
            Err(e) => {
                // Out of descriptors, as a rule.
                warn!(error = %e, "cannot accept a health connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    let mut told: Option<io::ErrorKind> = None;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                info!(%address, "health endpoints");
                return listener;
            }
            Err(e) => {
                if told.replace(e.kind()) != Some(e.kind()) {
                    warn!(%address, error = %e, "cannot serve health endpoints, trying again; free the address, or set health-address");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Answers one request of `stream`, whatever it turns out to be.
async fn one_request<S>(stream: S, shown: Arc<Shown>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&shown, request.method(), request.uri().path(), request.uri().query());
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(LIFE).keep_alive(false).max_buf_size(HEAD);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(LIFE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => debug!(error = %e, "health connection"),
        Err(_) => debug!("health connection closed: it took too long"),
    }
}

/// The same for `tests/fuzz`.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub async fn answer_one<S: AsyncRead + AsyncWrite + Unpin>(stream: S, shown: Arc<Shown>) {
    one_request(stream, shown).await;
}

fn respond(shown: &Shown, method: &Method, path: &str, query: Option<&str>) -> Response<Full<Bytes>> {
    let endpoint = match path {
        "/livez" | "/healthz" => Some(Endpoint::Livez),
        "/readyz" => Some(Endpoint::Readyz),
        "/metrics" => None,
        _ => {
            return text(
                StatusCode::NOT_FOUND,
                "there are /livez, /readyz and /healthz, each with ?verbose, and /metrics\n",
            );
        }
    };
    if method != Method::GET && method != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let Some(endpoint) = endpoint else { return metrics(&shown.registry) };
    let words = query.unwrap_or_default().split('&');
    let verbose = words.map(|word| word.split('=').next()).any(|word| word == Some("verbose"));
    let Answer { passed, body } =
        answer(&shown.checks, endpoint, if verbose { Detail::Verbose } else { Detail::Short });
    text(if passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut body = String::new();
    if let Err(error) = encode(&mut body, registry) {
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be written: {error}\n"));
    }
    let mut response = text(StatusCode::OK, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;
    use crate::health::Counts;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn broken() -> Vec<Check> {
        vec![Check::new("work", Counts::Ready, || Err("starting".to_owned()))]
    }

    /// A server on a port that was free a moment ago.
    async fn server(checks: Vec<Check>) -> SocketAddr {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        tokio::spawn(serve(address, Shown { checks, registry: Registry::default() }));
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        address
    }

    #[tokio::test]
    async fn it_speaks_http_and_closes() {
        let address = server(broken()).await;
        let livez = ask(address, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(livez.starts_with("HTTP/1.1 200 ") && livez.ends_with("\r\n\r\nok"), "{livez}");
        let readyz = ask(address, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(
            readyz.starts_with("HTTP/1.1 503 ") && readyz.contains("[-]work failed: starting"),
            "{readyz}"
        );
        let head = ask(address, "HEAD /readyz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 503 ") && head.ends_with("\r\n\r\n"), "{head}");
        let verbose = ask(address, "GET /healthz?verbose HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(verbose.contains("livez check passed"), "{verbose}");
        for (request, status) in
            [("GET / HTTP/1.1", "404"), ("POST /livez HTTP/1.1", "405"), ("nonsense", "400")]
        {
            let answer = ask(address, &format!("{request}\r\nHost: x\r\n\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        }
    }

    #[tokio::test]
    async fn what_is_counted_is_shown_as_prometheus_reads_it() {
        let address = server(broken()).await;
        let metrics = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(metrics.starts_with("HTTP/1.1 200 ") && metrics.contains("openmetrics-text"), "{metrics}");
        assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused_and_silent_peers_take_only_their_share() {
        let address = server(Vec::new()).await;
        let long = format!("GET /livez HTTP/1.1\r\nX: {}", "x".repeat(HEAD * 2));
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may close before it has read everything.
        drop(stream.write_all(long.as_bytes()).await);
        let mut seen = Vec::new();
        drop(stream.read_to_end(&mut seen).await);
        assert!(!String::from_utf8_lossy(&seen).contains(" 200 "));
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // Each holds a place, and loses it again after LIFE.
        let answered = async {
            loop {
                let mut stream = TcpStream::connect(address).await.unwrap();
                drop(stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await);
                let mut text = String::new();
                drop(stream.read_to_string(&mut text).await);
                if text.contains("200") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(LIFE * 4, answered).await.unwrap();
    }

    #[tokio::test]
    async fn an_address_in_use_is_waited_for() {
        let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = holder.local_addr().unwrap();
        tokio::spawn(serve(address, Shown::default()));
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(holder);
        let served = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(RETRY * 5, served).await.unwrap();
    }
}
