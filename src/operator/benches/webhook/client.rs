//! Who asks: HTTP/2 over few connections, as an API server does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use peerpods_operator::webhook::server::MUTATE_POD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

const CONNECTIONS: usize = 8;

/// Connections to one of the servers.
pub(super) struct Clients {
    senders: Vec<http2::SendRequest<Full<Bytes>>>,
    body: Bytes,
}

impl Clients {
    pub(super) async fn connect(tls: &TlsConnector, address: SocketAddr, body: &Bytes) -> Self {
        let mut senders = Vec::new();
        for _ in 0..CONNECTIONS {
            senders.push(connect(tls, address).await);
        }
        Self { senders, body: body.clone() }
    }

    /// `at_once` tasks ask `each` questions one after the other: what each took.
    pub(super) async fn all_the_time(&self, at_once: usize, each: usize) -> Vec<Duration> {
        self.tasks(at_once, move |mut sender, body, _| async move {
            let mut took = Vec::with_capacity(each);
            for _ in 0..each {
                let began = Instant::now();
                ask(&mut sender, &body).await;
                took.push(began.elapsed());
            }
            took
        })
        .await
    }

    /// `at_once` tasks ask once every `period`, one after the other within it: what each took from when it was due, waiting included.
    pub(super) async fn paced(&self, at_once: usize, each: u32, period: Duration) -> Vec<Duration> {
        let start = Instant::now() + Duration::from_millis(50);
        let apart = period / u32::try_from(at_once).unwrap();
        self.tasks(at_once, move |mut sender, body, n| async move {
            let mut took = Vec::new();
            for turn in 0..each {
                let due = start + period * turn + apart * u32::try_from(n).unwrap();
                tokio::time::sleep_until(due).await;
                ask(&mut sender, &body).await;
                took.push(due.elapsed());
            }
            took
        })
        .await
    }

    async fn tasks<F>(
        &self,
        at_once: usize,
        task: impl Fn(http2::SendRequest<Full<Bytes>>, Bytes, usize) -> F,
    ) -> Vec<Duration>
    where
        F: Future<Output = Vec<Duration>> + Send + 'static,
    {
        let start =
            |n: usize| tokio::spawn(task(self.senders[n % self.senders.len()].clone(), self.body.clone(), n));
        let mut took = Vec::new();
        for task in (0..at_once).map(start).collect::<Vec<_>>() {
            took.extend(task.await.unwrap());
        }
        took
    }
}

async fn ask(sender: &mut http2::SendRequest<Full<Bytes>>, body: &Bytes) {
    sender.ready().await.unwrap();
    let request =
        Request::post(format!("https://svc.ns.svc{MUTATE_POD}")).body(Full::new(body.clone())).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert!(response.status().is_success());
    response.into_body().collect().await.unwrap();
}

async fn connect(tls: &TlsConnector, address: SocketAddr) -> http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let stream = tls.connect(ServerName::try_from("svc.ns.svc").unwrap(), stream).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(super) fn tls(authority: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}
