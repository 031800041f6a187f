//! The cluster's certificate authority: made once, kept in one file, signing a server certificate per VM and a client certificate
//! per sandbox's link.
//!
//! It owns the authority's key. It does not hand the key out, and nothing but the daemon holds a [`ClusterCa`]: the link process and
//! the guest are given leaves. Key and certificate lie in *one* file (`ca.pem`), written beside and renamed, so that no crash leaves
//! one without the other. Shapes and lifetimes of the leaves: `facts/adaptor.md` §3.2. The authority itself lives ten years, not two:
//! VMs and nodes outlive the process that made it, and every leaf is clamped to it.

mod store;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// How long a leaf is valid, unless the authority ends sooner.
const LEAF_LIFE: Duration = Duration::from_secs(2 * 365 * 86_400);
/// How long the authority is valid.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How far the guest's clock may lag behind ours.
const CLOCK_SLACK: Duration = Duration::from_secs(5 * 60);
/// The longest common name X.509 allows.
const MAX_COMMON_NAME: usize = 64;

/// Why the authority could not be had, or could not sign.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file or directory of the authority could not be used.
    #[error("cannot {doing} {}", path.display())]
    Storage {
        /// What was tried, such as "read".
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Somebody else may read the key, or change its directory.
    #[error(
        "{} has mode {mode:04o} and owner {owner}: it must belong to us alone (chmod go-rwx); \
         if the key was readable, remove it and let a new one be made",
        path.display()
    )]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner's uid.
        owner: u32,
    },
    /// The file lacks a part: it was cut off, or written by hand.
    #[error(
        "{} holds no complete {missing}: restore it from a backup, or remove it to have a new authority made \
         (VMs that run now cannot be reached with a new one)",
        path.display()
    )]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// "private key" or "certificate".
        missing: &'static str,
    },
    /// Key and certificate are there and do not make an authority.
    #[error("{} is no authority of ours: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The name cannot stand in a certificate.
    #[error("{name:?} cannot be the name in a certificate: {reason}")]
    Name {
        /// The name asked for.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Making a key or signing failed.
    #[error("cannot issue the certificate of {name:?}")]
    Issue {
        /// Whose certificate.
        name: String,
        /// What the library said.
        #[source]
        source: rcgen::Error,
    },
}

/// A certificate and its private key, both PEM. Its `Debug` shows no key.
#[derive(Clone)]
pub struct PemPair {
    /// The certificate.
    pub certificate: String,
    key: SecretString,
}

impl PemPair {
    /// The private key (PKCS#8 PEM), for the one place that hands it on.
    #[must_use]
    pub fn expose_key(&self) -> &str {
        self.key.expose_secret()
    }
}

impl fmt::Debug for PemPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PemPair").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// The authority of one cluster.
pub struct ClusterCa {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    not_after: SystemTime,
}

impl fmt::Debug for ClusterCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterCa").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl ClusterCa {
    /// The authority kept in `dir`, made when there is none. The directory is made with mode 0700, the file with 0600. Two processes
    /// that ask at once get the same authority. Blocks on the disk; meant for start-up.
    ///
    /// # Errors
    /// [`CaError::Exposed`] when others may read the key, [`CaError::Incomplete`] for a file that was cut off; it is never replaced.
    pub fn load_or_create(dir: &Path) -> Result<Self, CaError> {
        let store = store::Store::open(dir)?;
        if let Some(text) = store.read()? {
            return Self::from_pem(text.expose_secret(), store.path());
        }
        let text = new_authority()?;
        store.write(&text)?;
        Self::from_pem(&text, store.path())
    }

    /// A server certificate whose only name is `name`, the VM's name.
    ///
    /// # Errors
    /// When `name` cannot be a DNS name in a certificate, or signing fails.
    pub fn issue_server(&self, name: &str) -> Result<PemPair, CaError> {
        let dns = name.to_owned().try_into().map_err(|_| bad_name(name, "it is not ASCII"))?;
        if rustls::pki_types::DnsName::try_from(name).is_err() {
            return Err(bad_name(name, "it is no DNS name"));
        }
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName(dns)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(name, params)
    }

    /// A client certificate for `common_name`, which only serves logs: the guest asks who signed it.
    ///
    /// # Errors
    /// When `common_name` is empty or longer than 64 characters, or signing fails.
    pub fn issue_client(&self, common_name: &str) -> Result<PemPair, CaError> {
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(common_name, params)
    }

    /// The authority's certificate (PEM), which both ends trust.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    fn issue(&self, name: &str, mut params: CertificateParams) -> Result<PemPair, CaError> {
        if name.is_empty() || name.chars().count() > MAX_COMMON_NAME {
            return Err(bad_name(name, "a common name has 1 to 64 characters"));
        }
        describe(&mut params, name, SystemTime::now() + LEAF_LIFE.min(self.left()));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let failed = |source| CaError::Issue { name: name.to_owned(), source };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?.pem();
        Ok(PemPair { certificate, key: SecretString::from(key.serialize_pem()) })
    }

    fn left(&self) -> Duration {
        self.not_after.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO)
    }

    fn from_pem(text: &str, path: &Path) -> Result<Self, CaError> {
        let incomplete = |missing| CaError::Incomplete { path: path.to_owned(), missing };
        let unusable = |reason| CaError::Unusable { path: path.to_owned(), reason };
        let key = KeyPair::from_pem(text).map_err(|_| incomplete("private key"))?;
        let der = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| incomplete("certificate"))?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| incomplete("certificate"))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(unusable("the key is not the certificate's"));
        }
        if !parsed.is_ca() {
            return Err(unusable("the certificate may not sign others"));
        }
        let not_after = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let not_after = UNIX_EPOCH + Duration::from_secs(not_after);
        if not_after <= SystemTime::now() {
            return Err(unusable("it has expired; remove it to have a new one made"));
        }
        let certificate = certificate_block(text).ok_or_else(|| incomplete("certificate"))?.to_owned();
        let issuer =
            Issuer::from_ca_cert_der(&der, key).map_err(|_| unusable("its certificate cannot be read"))?;
        Ok(Self { issuer, certificate, not_after })
    }
}

fn bad_name(name: &str, reason: &'static str) -> CaError {
    CaError::Name { name: name.chars().take(80).collect(), reason }
}

/// Subject and validity, the same for the authority and its leaves.
fn describe(params: &mut CertificateParams, name: &str, until: SystemTime) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "peerpods");
    params.distinguished_name.push(DnType::CommonName, name);
    let since_epoch = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(SystemTime::now() - CLOCK_SLACK);
    params.not_after = epoch + since_epoch(until);
}

/// A new key and its self-signed certificate, in this order, as the file holds them.
fn new_authority() -> Result<Zeroizing<String>, CaError> {
    let failed = |source| CaError::Issue { name: "the authority".to_owned(), source };
    let mut params = CertificateParams::default();
    describe(&mut params, "peerpods cluster authority", SystemTime::now() + AUTHORITY_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    // No extended key usage: it would have to allow both kinds of leaf, and Go's verifier applies it to the whole chain.
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?.pem();
    let key = Zeroizing::new(key.serialize_pem());
    Ok(Zeroizing::new(format!("{}{certificate}", key.as_str())))
}

fn certificate_block(text: &str) -> Option<&str> {
    const END: &str = "-----END CERTIFICATE-----";
    let from = text.find("-----BEGIN CERTIFICATE-----")?;
    let to = text.get(from..)?.find(END)? + from + END.len();
    text.get(from..to)
}

#[cfg(test)]
mod tests;
