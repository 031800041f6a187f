//! How the near end knows a guest that made its own key: by that key, whatever its certificate says of names and times (a guest's
//! clock may be wrong, and nobody signed it). That the guest *has* the key is what the handshake's signature shows.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use peerpods_podvm::token::GuestKey;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, PeerIncompatible, SignatureScheme};

use super::signatures::{Signatures, parse};

/// The key in a certificate.
///
/// # Errors
/// When it is no certificate.
pub(crate) fn key_of(certificate: &CertificateDer<'_>) -> Result<GuestKey, Error> {
    let hash = digest::digest(&digest::SHA256, parse(certificate)?.public_key().raw);
    let mut key = [0; 32];
    key.copy_from_slice(hash.as_ref());
    Ok(GuestKey(key))
}

/// Accepts one key, or any that is to be judged by other means after the handshake.
#[derive(Debug)]
pub(super) struct KeyTrust {
    known: Option<GuestKey>,
    signatures: Signatures,
}

impl KeyTrust {
    /// The owner of this key.
    pub(super) fn only(key: GuestKey, provider: &CryptoProvider) -> Self {
        Self { known: Some(key), signatures: Signatures::of(provider) }
    }

    /// Whoever has the key it shows. For admission alone: the caller must not believe anything before the guest has proved more.
    pub(super) fn to_be_admitted(provider: &CryptoProvider) -> Self {
        Self { known: None, signatures: Signatures::of(provider) }
    }
}

#[derive(Debug)]
struct AnotherKey;

impl fmt::Display for AnotherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is for another key than the one the guest was admitted with")
    }
}

impl std::error::Error for AnotherKey {}

impl ServerCertVerifier for KeyTrust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = key_of(end_entity)?;
        if self.known.is_some_and(|known| known != shown) {
            return Err(CertificateError::Other(OtherError(Arc::new(AnotherKey))).into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.schemes()
    }
}
