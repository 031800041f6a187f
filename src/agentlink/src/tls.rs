//! TLS between the two ends: rustls with aws-lc, mutual, TLS 1.2 or newer (`facts/adaptor.md` §3.2).
//!
//! It owns the two configurations and the judgement whether a failure can pass by itself. It opens no connection.

mod client_trust;

use std::io;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{AlertDescription, ClientConfig, Error, RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::link::LinkIdentity;
use crate::session::PROTOCOL;

/// Why a TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text holds nothing usable.
    #[error("the {what} is no PEM text of the expected kind")]
    Pem {
        /// Which text.
        what: &'static str,
        /// What was wrong; none when the text is empty of such blocks.
        #[source]
        source: Option<rustls::pki_types::pem::Error>,
    },
    /// Certificates and keys were read and do not fit together or are not usable.
    #[error("the {what} cannot be used")]
    Unusable {
        /// Which text.
        what: &'static str,
        /// What rustls said.
        #[source]
        source: Error,
    },
    /// `tls-min-version` is neither `VersionTLS12` nor `VersionTLS13`.
    #[error("the TLS version {0:?} is not known; VersionTLS12 and VersionTLS13 are")]
    Version(String),
}

/// The oldest TLS that is spoken, written as in `tls-min-version` of apf.json.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MinVersion {
    /// `VersionTLS12`.
    #[default]
    Tls12,
    /// `VersionTLS13`.
    Tls13,
}

impl FromStr for MinVersion {
    type Err = TlsError;

    fn from_str(text: &str) -> Result<Self, TlsError> {
        match text {
            "VersionTLS12" => Ok(Self::Tls12),
            "VersionTLS13" => Ok(Self::Tls13),
            other => Err(TlsError::Version(other.chars().take(40).collect())),
        }
    }
}

static FROM_TLS12: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
static FROM_TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

impl MinVersion {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => &FROM_TLS12,
            Self::Tls13 => &FROM_TLS13,
        }
    }
}

/// What the guest's end proves itself with and whom it admits: PEM texts, the keys of apf.json.
#[derive(Clone, Copy)]
pub struct FarKeys<'a> {
    /// `tls-server-cert`.
    pub certificate: &'a str,
    /// `tls-server-key`.
    pub key: &'a str,
    /// `tls-client-ca`: an authority, or the one client certificate that is admitted.
    pub client_ca: &'a str,
}

/// The near end: trusts `identity.authority` alone, shows the client certificate, checks the server's name (given per connection).
///
/// # Errors
/// [`TlsError`] says which text is at fault, never its content.
pub fn near_client(identity: &LinkIdentity) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("authority", &identity.authority)? {
        roots.add(certificate).map_err(|source| TlsError::Unusable { what: "authority", source })?;
    }
    let unusable = |source| TlsError::Unusable { what: "client certificate", source };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(MinVersion::default().versions())
        .map_err(unusable)?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            certificates("client certificate", &identity.certificate)?,
            private_key("client key", &identity.key)?,
        )
        .map_err(unusable)?;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The same end, offering a resumable session (`session.rs`); a peer that knows nothing of ALPN does not answer to the offer.
pub(crate) fn offering_session(near: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = near.clone();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Arc::new(config)
}

/// The far end: requires a client certificate that `client_ca` signed, or that *is* one of `client_ca`'s certificates (a stock
/// daemon sends its self-signed, non-CA client certificate as the only root). Agrees to a resumable session with a client that offers
/// one (`session.rs`); one that offers nothing by ALPN, as a stock one, is served plainly.
///
/// # Errors
/// [`TlsError`] says which text is at fault, never its content.
pub fn far_server(keys: FarKeys<'_>, min: MinVersion) -> Result<Arc<ServerConfig>, TlsError> {
    let admitted = certificates("client authority", keys.client_ca)?;
    let provider = provider();
    let trust = client_trust::ClientTrust::new(admitted, &provider)?;
    let unusable = |source| TlsError::Unusable { what: "server certificate", source };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(min.versions())
        .map_err(unusable)?
        .with_client_cert_verifier(Arc::new(trust))
        .with_single_cert(
            certificates("server certificate", keys.certificate)?,
            private_key("server key", keys.key)?,
        )
        .map_err(unusable)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

/// What a failed connection means for the next attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// One side does not accept the other; trying again will not help.
    Untrusted(String),
    /// It may pass: a booting guest closes connections, and its clock may be wrong for a moment.
    Passing(String),
}

/// Judges an error of a TLS handshake, or of the first read after it (TLS 1.3 tells a client only then that it was refused).
#[must_use]
pub fn judge(error: &io::Error) -> Fault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(reason)) => {
            Fault::Untrusted(format!("its certificate is not acceptable: {reason}"))
        }
        Some(Error::NoCertificatesPresented) => Fault::Untrusted("it showed no certificate".to_owned()),
        Some(Error::PeerIncompatible(reason)) => {
            Fault::Untrusted(format!("there is no TLS version or cipher both sides speak: {reason:?}"))
        }
        Some(Error::AlertReceived(alert)) => judge_alert(*alert),
        Some(other) => Fault::Passing(format!("TLS failed: {other}")),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            Fault::Passing("the guest closed the connection during the TLS handshake".to_owned())
        }
        None => Fault::Passing(format!("the connection broke during the TLS handshake: {error}")),
    }
}

fn judge_alert(alert: AlertDescription) -> Fault {
    use AlertDescription as A;
    match alert {
        // Sent for "not valid yet" as well: the guest's clock may be behind until it is set.
        A::CertificateExpired => Fault::Passing(
            "the guest says that our certificate is not valid at this time: its clock may be wrong"
                .to_owned(),
        ),
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateUnknown
        | A::UnknownCA
        | A::AccessDenied
        | A::DecryptError
        | A::CertificateRequired
        | A::HandshakeFailure
        | A::ProtocolVersion
        | A::InsufficientSecurity
        | A::UnrecognisedName => Fault::Untrusted(format!("it does not accept us: TLS alert {alert:?}")),
        other => Fault::Passing(format!("the guest ended the TLS handshake with the alert {other:?}")),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Pem { what, source: Some(source) })?;
    if found.is_empty() { Err(TlsError::Pem { what, source: None }) } else { Ok(found) }
}

fn private_key(what: &'static str, pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|source| TlsError::Pem { what, source: Some(source) })
}

/// Whether a far end that trusts `client_ca` admits `shown` at that time, for `tests/fuzz`.
///
/// # Errors
/// When `client_ca` is not usable.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn admits(client_ca: &[u8], shown: &[u8], now: u64) -> Result<bool, TlsError> {
    use rustls::pki_types::UnixTime;
    use rustls::server::danger::ClientCertVerifier as _;
    let trust = client_trust::ClientTrust::new(vec![CertificateDer::from(client_ca.to_vec())], &provider())?;
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
    Ok(trust.verify_client_cert(&CertificateDer::from(shown), &[], now).is_ok())
}

#[cfg(test)]
mod tests;
