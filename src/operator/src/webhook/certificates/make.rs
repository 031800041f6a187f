//! A certificate and an authority that signed it and nothing else.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use secrecy::SecretString;

/// How long a certificate and its authority are valid.
pub const LIFE: Duration = Duration::from_secs(180 * 86_400);
/// How far the clocks of API servers may lag behind ours.
pub const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// What was made. The authority's key is gone already.
pub struct Made {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: SecretString,
    /// The authority's certificate, PEM.
    pub authority: String,
}

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made").finish_non_exhaustive()
    }
}

/// Makes a certificate for `names`.
///
/// # Errors
/// When a name cannot stand in a certificate, or there is no randomness.
pub fn make(names: &[String], now: SystemTime) -> Result<Made, rcgen::Error> {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut params = CertificateParams::default();
    // The time tells the authorities of one bundle apart: a certificate names its issuer.
    describe(&mut params, &format!("webhook authority of {seconds}"), now);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let authority = params.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(params, authority_key);

    let mut params = CertificateParams::new(names.to_vec())?;
    describe(&mut params, "webhook", now);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.signed_by(&key, &issuer)?.pem();
    Ok(Made { certificate, key: SecretString::from(key.serialize_pem()), authority })
}

fn describe(params: &mut CertificateParams, name: &str, now: SystemTime) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "peerpods");
    params.distinguished_name.push(DnType::CommonName, name);
    let since_epoch = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(now - BACKDATED);
    params.not_after = epoch + since_epoch(now + LIFE);
}
