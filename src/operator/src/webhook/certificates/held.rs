//! The Secret's content: certificates, their keys, and the authorities to be trusted. Read and written here, kept nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use secrecy::{ExposeSecret, SecretString};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::decide::State;
use super::make::Made;
use super::{CERT_MANAGER_MARK, MANAGED_BY, SERVICE_CA_MARK, SERVICE_CA_MARK_OLD};

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITIES: &str = "ca.crt";
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";

/// Why a Secret's content cannot be used. Says which key, never what it holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeldError {
    /// A key is missing or no PEM text.
    #[error("{0} is missing or no PEM text of the expected kind")]
    Pem(&'static str),
    /// A certificate cannot be read.
    #[error("{0} holds a certificate that cannot be read")]
    Certificate(&'static str),
    /// Certificate and key do not belong together, or the key is of a kind that is not spoken.
    #[error("{0} and its key do not fit together")]
    Mismatch(&'static str),
    /// Nobody could verify the certificate.
    #[error("{0} is signed by none of the authorities in ca.crt")]
    NoAuthority(&'static str),
}

/// A certificate and its key.
pub struct Pair {
    /// PEM, with whatever chain there is.
    pub certificate: String,
    /// PEM.
    pub key: SecretString,
    /// From when on it is valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
    /// DNS names.
    pub names: BTreeSet<String>,
    /// Both as TLS takes them.
    pub usable: Arc<CertifiedKey>,
    issuer: Vec<u8>,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("not_after", &self.not_after)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// An authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// PEM.
    pub certificate: String,
    /// Until when it is valid.
    pub not_after: SystemTime,
    subject: Vec<u8>,
}

/// What a Secret of ours holds.
#[derive(Debug)]
pub struct Held {
    /// What is shown.
    pub serving: Pair,
    /// What will be shown.
    pub next: Option<Pair>,
    /// Who is trusted; the newest first.
    pub authorities: Vec<Authority>,
}

/// Whose a Secret is, and what it holds.
#[must_use]
pub fn state_of(secret: Option<&Secret>) -> State {
    let Some(secret) = secret else { return State::Missing };
    if !is_ours(secret) {
        return State::Foreign;
    }
    match Held::read(secret) {
        Ok(held) => State::Ours(Box::new(held)),
        Err(error) => State::Broken(error.to_string()),
    }
}

fn is_ours(secret: &Secret) -> bool {
    let labels = secret.metadata.labels.as_ref();
    let ours = labels.and_then(|labels| labels.get(MANAGED_BY.0)).is_some_and(|by| by == MANAGED_BY.1);
    let mut annotations = secret.metadata.annotations.iter().flatten().map(|(key, _)| key.as_str());
    let others = [SERVICE_CA_MARK, SERVICE_CA_MARK_OLD, CERT_MANAGER_MARK];
    ours && !annotations.any(|key| others.iter().any(|mark| key.starts_with(mark)))
}

/// The certificate of any Secret, also of one that is not ours.
///
/// # Errors
/// When there is none that TLS could use.
pub fn serving_of(secret: &Secret) -> Result<Pair, HeldError> {
    Pair::read(secret, CERTIFICATE, KEY)
}

/// The authorities as a Secret has them; none when it has no such key.
#[must_use]
pub fn bundle_of(secret: &Secret) -> Option<Vec<u8>> {
    secret.data.as_ref()?.get(AUTHORITIES).map(|bytes| bytes.0.clone()).filter(|bytes| !bytes.is_empty())
}

impl Held {
    fn read(secret: &Secret) -> Result<Self, HeldError> {
        let has_next =
            secret.data.iter().flatten().any(|(key, _)| key == NEXT_CERTIFICATE || key == NEXT_KEY);
        let held = Self {
            serving: serving_of(secret)?,
            next: if has_next { Some(Pair::read(secret, NEXT_CERTIFICATE, NEXT_KEY)?) } else { None },
            authorities: authorities(text(secret, AUTHORITIES)?)?,
        };
        if !held.verifies(&held.serving) {
            return Err(HeldError::NoAuthority(CERTIFICATE));
        }
        if held.next.as_ref().is_some_and(|next| !held.verifies(next)) {
            return Err(HeldError::NoAuthority(NEXT_CERTIFICATE));
        }
        Ok(held)
    }

    /// Whether one of the authorities has signed it, as whoever connects will ask. Whether it is still valid is asked elsewhere.
    fn verifies(&self, pair: &Pair) -> bool {
        let mut roots = RootCertStore::empty();
        let ders =
            self.authorities.iter().map(|one| CertificateDer::from_pem_slice(one.certificate.as_bytes()));
        roots.add_parsable_certificates(ders.flatten());
        let since = pair.not_before.duration_since(UNIX_EPOCH).map(UnixTime::since_unix_epoch);
        let (Some((leaf, chain)), Ok(since)) = (pair.usable.cert.split_first(), since) else { return false };
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
        ParsedCertificate::try_from(leaf).is_ok_and(|leaf| {
            verify_server_cert_signed_by_trust_anchor(&leaf, &roots, chain, since, algorithms).is_ok()
        })
    }

    /// The Secret's data with the next certificate beside the present one. An earlier next one is replaced, and its authority forgotten.
    #[must_use]
    pub fn staged(&self, made: &Made) -> BTreeMap<String, ByteString> {
        let serving = self.authorities.iter().filter(|authority| authority.subject == self.serving.issuer);
        let mut data =
            data(&self.serving, std::iter::once(&made.authority).chain(serving.map(|one| &one.certificate)));
        put(&mut data, NEXT_CERTIFICATE, &made.certificate);
        put(&mut data, NEXT_KEY, made.key.expose_secret());
        data
    }

    /// The Secret's data with the next certificate as the present one; every authority stays.
    #[must_use]
    pub fn promoted(&self) -> BTreeMap<String, ByteString> {
        let shown = self.next.as_ref().unwrap_or(&self.serving);
        data(shown, self.authorities.iter().map(|one| &one.certificate))
    }

    /// The Secret's data without the authorities that have ended by `now`.
    #[must_use]
    pub fn forgotten(&self, now: SystemTime) -> BTreeMap<String, ByteString> {
        let living = self.authorities.iter().filter(|one| one.not_after > now);
        data(&self.serving, living.map(|one| &one.certificate))
    }
}

/// The Secret's data of a certificate that was just made.
#[must_use]
pub fn fresh(made: &Made) -> BTreeMap<String, ByteString> {
    let mut data = BTreeMap::new();
    put(&mut data, CERTIFICATE, &made.certificate);
    put(&mut data, KEY, made.key.expose_secret());
    put(&mut data, AUTHORITIES, &made.authority);
    data
}

fn data<'a>(pair: &Pair, authorities: impl Iterator<Item = &'a String>) -> BTreeMap<String, ByteString> {
    let mut data = BTreeMap::new();
    put(&mut data, CERTIFICATE, &pair.certificate);
    put(&mut data, KEY, pair.key.expose_secret());
    let bundle: Vec<&str> = authorities.map(String::as_str).collect();
    put(&mut data, AUTHORITIES, &bundle.concat());
    data
}

fn put(data: &mut BTreeMap<String, ByteString>, key: &str, text: &str) {
    data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
}

fn text<'a>(secret: &'a Secret, key: &'static str) -> Result<&'a str, HeldError> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key)).ok_or(HeldError::Pem(key))?;
    std::str::from_utf8(&bytes.0).map_err(|_| HeldError::Pem(key))
}

impl Pair {
    fn read(secret: &Secret, certificate: &'static str, key: &'static str) -> Result<Self, HeldError> {
        let (pem, key_pem) = (text(secret, certificate)?, text(secret, key)?);
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| HeldError::Pem(certificate))?;
        let der = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| HeldError::Pem(key))?;
        let leaf = chain.first().cloned().ok_or(HeldError::Pem(certificate))?;
        let (_, parsed) =
            X509Certificate::from_der(&leaf).map_err(|_| HeldError::Certificate(certificate))?;
        let usable = CertifiedKey::from_der(chain, der, &aws_lc_rs::default_provider())
            .map_err(|_| HeldError::Mismatch(certificate))?;
        Ok(Self {
            certificate: pem.to_owned(),
            key: SecretString::from(key_pem),
            not_before: time(parsed.validity().not_before.timestamp()),
            not_after: time(parsed.validity().not_after.timestamp()),
            names: dns_names(&parsed),
            usable: Arc::new(usable),
            issuer: parsed.issuer().as_raw().to_vec(),
        })
    }
}

fn dns_names(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return BTreeSet::new() };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(dns).collect()
}

fn authorities(bundle: &str) -> Result<Vec<Authority>, HeldError> {
    const END: &str = "-----END CERTIFICATE-----";
    let unreadable = || HeldError::Certificate(AUTHORITIES);
    let mut found = Vec::new();
    for block in bundle.split_inclusive(END).map(str::trim_start).filter(|block| block.contains(END)) {
        let der =
            CertificateDer::from_pem_slice(block.as_bytes()).map_err(|_| HeldError::Pem(AUTHORITIES))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| unreadable())?;
        found.push(Authority {
            certificate: format!("{block}\n"),
            not_after: time(parsed.validity().not_after.timestamp()),
            subject: parsed.subject().as_raw().to_vec(),
        });
    }
    Ok(found)
}

fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
