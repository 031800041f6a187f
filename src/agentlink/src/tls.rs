//! TLS between the two ends: rustls with aws-lc, mutual, TLS 1.2 or newer (`facts/adaptor.md` §3.2).
//!
//! It owns the two configurations and the judgement whether a failure can pass by itself. It opens no connection.

mod client_trust;
mod server_trust;
mod signatures;

use std::io;
use std::str::FromStr;
use std::sync::Arc;

use peerpods_podvm::token::GuestKey;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ConfigBuilder, Error, RootCertStore, ServerConfig,
    SupportedProtocolVersion,
};

use crate::admission;
use crate::link::LinkIdentity;
use crate::session::PROTOCOL;

pub(crate) use server_trust::key_of;

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
    /// The guest's own key could not be made.
    #[error("cannot make the guest's key")]
    Generate(#[source] rcgen::Error),
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
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(MinVersion::default().versions())
        .map_err(|source| TlsError::Unusable { what: "client certificate", source })?
        .with_root_certificates(roots);
    Ok(Arc::new(showing(identity, builder)?))
}

/// The near end for a guest that is yet to be admitted: believes whoever has the key it shows. Offers `admission.rs`'s protocol.
///
/// # Errors
/// [`TlsError`] says which text is at fault, never its content.
pub(crate) fn near_admitting(identity: &LinkIdentity) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let trust = server_trust::KeyTrust::to_be_admitted(&provider);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(MinVersion::Tls13.versions())
        .map_err(|source| TlsError::Unusable { what: "client certificate", source })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust));
    let mut config = showing(identity, builder)?;
    config.alpn_protocols = vec![admission::PROTOCOL.to_vec()];
    Ok(config)
}

/// The same near end for a guest that is known by its key.
pub(crate) fn near_knowing(admitting: &ClientConfig, key: GuestKey) -> ClientConfig {
    let mut config = admitting.clone();
    config.alpn_protocols.clear();
    let trust = server_trust::KeyTrust::only(key, &provider());
    config.dangerous().set_certificate_verifier(Arc::new(trust));
    config
}

fn showing(
    identity: &LinkIdentity,
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
) -> Result<ClientConfig, TlsError> {
    let chain = certificates("client certificate", &identity.certificate)?;
    let mut config = builder
        .with_client_auth_cert(chain, private_key("client key", &identity.key)?)
        .map_err(|source| TlsError::Unusable { what: "client certificate", source })?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The key by which a guest sees the near end.
pub(crate) fn key_shown_by(identity: &LinkIdentity) -> Result<GuestKey, TlsError> {
    let chain = certificates("client certificate", &identity.certificate)?;
    let shown = chain.first().ok_or(TlsError::Pem { what: "client certificate", source: None })?;
    key_of(shown).map_err(|source| TlsError::Unusable { what: "client certificate", source })
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
    let chain = certificates("server certificate", keys.certificate)?;
    let key = private_key("server key", keys.key)?;
    let mut config = serving(keys.client_ca, min, chain, key)?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

/// The far end with a key made now, which is in this process' memory and nowhere else: for a guest that has to be admitted
/// (`admission.rs`). TLS 1.3, because both ends are ours. Answers the key's name as well.
///
/// # Errors
/// When the key cannot be made, or `client_ca` is no PEM text.
pub fn far_with_own_key(client_ca: &str) -> Result<(Arc<ServerConfig>, GuestKey), TlsError> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(TlsError::Generate)?;
    // Valid from 1975 on and for ever: the guest's clock may be wrong, and nobody asks.
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "peerpods-guest");
    let certificate = params.self_signed(&pair).map_err(TlsError::Generate)?.der().clone();
    let unusable = |source| TlsError::Unusable { what: "guest's own certificate", source };
    let own = key_of(&certificate).map_err(unusable)?;
    let key = PrivatePkcs8KeyDer::from(pair.serialize_der()).into();
    let mut config = serving(client_ca, MinVersion::Tls13, vec![certificate], key)?;
    config.alpn_protocols = vec![admission::PROTOCOL.to_vec(), PROTOCOL.to_vec()];
    Ok((Arc::new(config), own))
}

fn serving(
    client_ca: &str,
    min: MinVersion,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let admitted = certificates("client authority", client_ca)?;
    let provider = provider();
    let trust = client_trust::ClientTrust::new(admitted, &provider)?;
    let unusable = |source| TlsError::Unusable { what: "server certificate", source };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(min.versions())
        .map_err(unusable)?
        .with_client_cert_verifier(Arc::new(trust))
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
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
        // What our own verifiers say; as part of the general form it would be shown as code.
        Some(Error::InvalidCertificate(CertificateError::Other(reason))) => {
            Fault::Untrusted(format!("its certificate is not acceptable: {reason}"))
        }
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
        A::NoApplicationProtocol => Fault::Passing(
            "what answers there does not know the protocol we ask for: an earlier VM at this address, or a guest that cannot be \
             admitted by a token (set guest-identity to stock for its image)"
                .to_owned(),
        ),
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
