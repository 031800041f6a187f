//! The two servers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use peerpods_operator::webhook::certificates::{Serving, Shown};
use peerpods_operator::webhook::kataconfigs::Existing;
use peerpods_operator::webhook::server::{Configs, Limits, Webhooks, serve};
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub(super) async fn start_webhook(webhooks: Arc<Webhooks>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, webhooks, Limits::default(), std::future::pending()));
    address
}

/// The floor: the same TLS, the same HTTP, and nothing done.
pub(super) async fn start_echo(serving: Serving) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(Shown::from(serving)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let tls = tls.clone();
            tokio::spawn(async move {
                stream.set_nodelay(true).unwrap();
                let stream = tls.accept(stream).await.unwrap();
                let service = service_fn(|request: Request<Incoming>| async {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    Ok::<_, Infallible>(Response::new(Full::new(body)))
                });
                let builder = Builder::new(TokioExecutor::new()).http1_only();
                let _either = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

pub(super) struct Nobody;

#[async_trait]
impl Configs for Nobody {
    fn namespace(&self) -> &str {
        "ns"
    }

    async fn kataconfigs(&self) -> Result<Vec<Existing>, String> {
        Ok(Vec::new())
    }

    async fn peerpodconfigs(&self) -> Result<Vec<Existing>, String> {
        Ok(Vec::new())
    }
}
