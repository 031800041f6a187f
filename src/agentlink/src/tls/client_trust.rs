//! Which client the guest admits.
//!
//! `tls-client-ca` may hold an authority (ours) or the very client certificate that will come (a stock daemon's: self-signed and
//! no CA). The first is a matter of chains. The second is compared byte by byte, and never used as an authority: the holder of a
//! leaf must not be able to admit others.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use super::TlsError;
use super::signatures::{Signatures, parse};

const WHAT: &str = "client authority";

/// Admits what an authority signed, and certificates that were given one by one.
#[derive(Debug)]
pub(super) struct ClientTrust {
    chains: Option<Arc<dyn ClientCertVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
    signatures: Signatures,
}

impl ClientTrust {
    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let unusable = |source| TlsError::Unusable { what: WHAT, source };
        let mut roots = RootCertStore::empty();
        let mut pinned = Vec::new();
        for certificate in certificates {
            if is_authority(&certificate).map_err(unusable)? {
                roots.add(certificate).map_err(unusable)?;
            } else {
                pinned.push(certificate);
            }
        }
        let chains = (!roots.is_empty())
            .then(|| WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build())
            .transpose()
            .map_err(|e| unusable(Error::General(e.to_string())))?;
        Ok(Self { chains, pinned, signatures: Signatures::of(provider) })
    }
}

impl ClientCertVerifier for ClientTrust {
    /// Nothing: a client has one certificate for us, and a scanner need not learn whom we trust.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            return check_time(end_entity, now).map(|()| ClientCertVerified::assertion());
        }
        match &self.chains {
            Some(chains) => chains.verify_client_cert(end_entity, intermediates, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.tls12(message, cert, dss)
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

fn is_authority(certificate: &CertificateDer<'_>) -> Result<bool, Error> {
    Ok(parse(certificate)?.is_ca())
}

fn check_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let parsed = parse(certificate)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}
