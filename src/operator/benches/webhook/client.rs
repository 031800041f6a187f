//! Who asks: as an API server does, over HTTP/1.1 (it does not speak HTTP/2 to webhooks, kubernetes/kubernetes#75791). A question takes an idle
//! connection or opens one; as many as 25 are kept idle.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use peerpods_operator::webhook::server::MUTATE_POD;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

/// client-go's number.
const IDLE: usize = 25;

/// An API server's side of one of the servers.
pub(super) struct Clients {
    tls: TlsConnector,
    address: SocketAddr,
    body: Bytes,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    opened: AtomicUsize,
}

impl Clients {
    pub(super) fn new(tls: &TlsConnector, address: SocketAddr, body: &Bytes) -> Arc<Self> {
        let (tls, body) = (tls.clone(), body.clone());
        Arc::new(Self { tls, address, body, idle: Mutex::default(), opened: AtomicUsize::new(0) })
    }

    /// How many connections were opened.
    pub(super) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    /// `at_once` tasks ask `each` questions one after the other: what each took.
    pub(super) async fn all_the_time(self: &Arc<Self>, at_once: usize, each: usize) -> Vec<Duration> {
        self.tasks(at_once, |this, _| async move {
            let mut took = Vec::with_capacity(each);
            for _ in 0..each {
                let began = Instant::now();
                this.ask().await;
                took.push(began.elapsed());
            }
            took
        })
        .await
    }

    /// `at_once` tasks ask once every `period`, one after the other within it: what each took from when it was due, waiting included.
    pub(super) async fn paced(
        self: &Arc<Self>,
        at_once: usize,
        each: u32,
        period: Duration,
    ) -> Vec<Duration> {
        let start = Instant::now() + Duration::from_millis(50);
        let apart = period / u32::try_from(at_once).unwrap();
        self.tasks(at_once, |this, n| async move {
            let mut took = Vec::new();
            for turn in 0..each {
                let due = start + period * turn + apart * u32::try_from(n).unwrap();
                tokio::time::sleep_until(due).await;
                this.ask().await;
                took.push(due.elapsed());
            }
            took
        })
        .await
    }

    async fn tasks<F>(self: &Arc<Self>, at_once: usize, task: impl Fn(Arc<Self>, usize) -> F) -> Vec<Duration>
    where
        F: Future<Output = Vec<Duration>> + Send + 'static,
    {
        let start = |n: usize| tokio::spawn(task(self.clone(), n));
        let mut took = Vec::new();
        for task in (0..at_once).map(start).collect::<Vec<_>>() {
            took.extend(task.await.unwrap());
        }
        took
    }

    async fn ask(&self) {
        let idle = self.idle.lock().unwrap().pop();
        let mut sender = match idle {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect().await,
        };
        let request = Request::post(MUTATE_POD)
            .header("host", "svc.ns.svc")
            .body(Full::new(self.body.clone()))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert!(response.status().is_success());
        response.into_body().collect().await.unwrap();
        sender.ready().await.unwrap();
        let mut idle = self.idle.lock().unwrap();
        if idle.len() < IDLE {
            idle.push(sender);
        }
    }

    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("svc.ns.svc").unwrap();
        let stream = self.tls.connect(name, stream).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

pub(super) fn tls(authority: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Nor does an API server.
    config.resumption = Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}
