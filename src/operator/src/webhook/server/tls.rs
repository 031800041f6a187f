//! TLS as the API server speaks it: no client certificate, HTTP/2 where it is spoken.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::NoServerSessionStorage;
use tokio_rustls::TlsAcceptor;

use crate::webhook::certificates::Shown;

/// HTTP/2's name in a handshake.
pub(super) const HTTP2: &[u8] = b"h2";

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS for the webhook")]
pub struct TlsError(#[from] rustls::Error);

pub(super) fn acceptor(shown: &Shown) -> Result<TlsAcceptor, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown.clone()));
    config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    // API servers resume no sessions, and a resumed one would not be shown a new certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
