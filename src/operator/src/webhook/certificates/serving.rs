//! The certificate that TLS shows: replaced while connections go on, new ones get the new one.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use secrecy::ExposeSecret;
use tokio::sync::watch;

use super::held::Pair;
use super::make::make;

/// Why there is not even a certificate to begin with.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// None could be made.
    #[error("cannot make a certificate to begin with")]
    Make(#[from] rcgen::Error),
    /// What was made cannot be used.
    #[error("cannot use the certificate to begin with")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// What was made cannot be used.
    #[error("cannot use the certificate to begin with")]
    Use(#[from] rustls::Error),
}

/// What is shown now.
#[derive(Clone)]
struct Current {
    key: Arc<CertifiedKey>,
    /// Until when the API server takes it; or why it does not.
    good: Result<SystemTime, String>,
}

/// The certificate that is shown. Cheap to clone; all clones show the same.
#[derive(Clone)]
pub struct Serving(Arc<watch::Sender<Current>>);

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Serving").field(&self.0.borrow().good).finish()
    }
}

impl Serving {
    /// Begins with a certificate that nobody trusts: health can be asked over TLS before the real one is there, and says that it is not.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn untrusted() -> Result<Self, ServingError> {
        let made = make(&["localhost".to_owned()], SystemTime::now())?;
        let certificate = CertificateDer::from_pem_slice(made.certificate.as_bytes())?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(made.key.expose_secret().as_bytes())?;
        let key = CertifiedKey::from_der(vec![certificate], key.into(), &aws_lc_rs::default_provider())?;
        let good = Err("the webhook's certificate is not there yet".to_owned());
        Ok(Self(Arc::new(watch::Sender::new(Current { key: Arc::new(key), good }))))
    }

    /// Shows `pair` from now on. The same again changes nothing.
    pub fn show(&self, pair: &Pair) {
        let same = |current: &Current| current.good.is_ok() && current.key.cert == pair.usable.cert;
        self.0.send_if_modified(|current| {
            let changed = !same(current);
            if changed {
                *current = Current { key: pair.usable.clone(), good: Ok(pair.not_after) };
            }
            changed
        });
    }

    /// Why there is no certificate. One that is shown already stays.
    pub fn missing(&self, why: String) {
        self.0.send_if_modified(|current| match &mut current.good {
            Ok(_) => false,
            Err(text) => std::mem::replace(text, why.clone()) != why,
        });
    }

    /// Whether the API server takes what is shown.
    ///
    /// # Errors
    /// Why it does not.
    pub fn ready(&self, now: SystemTime) -> Result<(), String> {
        match &self.0.borrow().good {
            Ok(until) if now < *until => Ok(()),
            Ok(_) => Err("the webhook's certificate has expired".to_owned()),
            Err(why) => Err(why.clone()),
        }
    }

    /// What is shown, as TLS takes it.
    #[must_use]
    pub fn key(&self) -> Arc<CertifiedKey> {
        self.0.borrow().key.clone()
    }
}
