//! An API server's side of a webhook call: TLS by name, HTTP/1.1 or HTTP/2.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

#[derive(Debug, Clone, Copy)]
pub(super) enum Http {
    One,
    Two,
}

#[derive(Clone)]
pub(super) struct Client {
    address: SocketAddr,
    config: Arc<ClientConfig>,
    roots: Arc<RootCertStore>,
}

pub(super) type Answer = (StatusCode, Bytes);

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

impl Client {
    pub(super) fn new(address: SocketAddr, trusted: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
        let roots = Arc::new(roots);
        let config = with(&[&rustls::version::TLS13, &rustls::version::TLS12], &roots);
        Self { address, config, roots }
    }

    pub(super) fn with_tls(&self, version: &'static SupportedProtocolVersion) -> Self {
        Self { config: with(&[version], &self.roots), ..self.clone() }
    }

    pub(super) fn trusting(&self, authority: &str) -> Self {
        Self::new(self.address, authority)
    }

    /// Believes any certificate, as kubelet's probes do.
    pub(super) fn like_kubelet(&self) -> Self {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        Self { config: Arc::new(config), ..self.clone() }
    }

    async fn tls(&self, http: Http) -> io::Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::clone(&self.config);
        // The API server resumes none either; a resumed session would not look at the certificate.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = match http {
            Http::One => vec![b"http/1.1".to_vec()],
            Http::Two => vec![b"h2".to_vec()],
        };
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("svc.ns.svc").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    pub(super) async fn try_connect(&self, http: Http) -> io::Result<Connection> {
        let io = TokioIo::new(self.tls(http).await?);
        Ok(match http {
            Http::One => {
                let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
                tokio::spawn(connection);
                Connection::One(sender)
            }
            Http::Two => {
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), io).await.map_err(io::Error::other)?;
                tokio::spawn(connection);
                Connection::Two(sender)
            }
        })
    }

    pub(super) async fn connect(&self, http: Http) -> Connection {
        self.try_connect(http).await.unwrap()
    }

    pub(super) async fn try_post(&self, http: Http, path: &str, body: Vec<u8>) -> io::Result<Answer> {
        self.try_connect(http).await?.try_send(Method::POST, path, body).await.map_err(io::Error::other)
    }

    pub(super) async fn post(&self, http: Http, path: &str, body: Vec<u8>) -> Answer {
        self.try_post(http, path, body).await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.connect(Http::One).await.send(Method::GET, path, Vec::new()).await
    }

    /// Connects without TLS and returns when the server has had enough.
    pub(super) async fn says_no_hello(&self) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let _either = stream.read(&mut [0; 16]).await;
    }

    /// Shakes hands and returns when the server has had enough.
    pub(super) async fn says_nothing(&self, http: Http) {
        let mut stream = self.tls(http).await.unwrap();
        let _either = stream.read_to_end(&mut Vec::new()).await;
    }

    /// What is answered to a text, until the server closes or has said a line.
    pub(super) async fn raw(&self, text: &str) -> String {
        let mut stream = self.tls(Http::One).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = vec![0; 1024];
        let length = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }
}

fn with(versions: &[&'static SupportedProtocolVersion], roots: &Arc<RootCertStore>) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    Arc::new(config.with_root_certificates(roots.clone()).with_no_client_auth())
}

pub(super) enum Connection {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    pub(super) async fn try_send(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> hyper::Result<Answer> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://svc.ns.svc{path}"))
            .header("host", "svc.ns.svc");
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let response = match self {
            Self::One(sender) => {
                sender.ready().await?;
                sender.send_request(relative(request)).await?
            }
            Self::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    pub(super) async fn send(&mut self, method: Method, path: &str, body: Vec<u8>) -> Answer {
        self.try_send(method, path, body).await.unwrap()
    }
}

/// HTTP/1.1 names the path alone.
fn relative(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    *request.uri_mut() = request.uri().path().parse().unwrap();
    request
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
