//! Who makes the certificate, and how that is written in a variable.

use std::fmt;
use std::str::FromStr;

/// The variable that tells the webhook's pods who makes their certificate. Without it they do.
pub const CERTIFICATE_VARIABLE: &str = "PEERPODS_WEBHOOK_CERTIFICATE";

const OWN: &str = "own";
const SERVICE_CA: &str = "service-ca";
const CERT_MANAGER: &str = "cert-manager:";

/// Who makes the certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Source {
    /// We do.
    #[default]
    Own,
    /// OpenShift's service-ca.
    ServiceCa,
    /// cert-manager, from this Certificate (`namespace/name`).
    CertManager(String),
}

/// The word is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("want {OWN}, {SERVICE_CA} or {CERT_MANAGER}NAMESPACE/NAME")]
pub struct SourceError;

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str(OWN),
            Self::ServiceCa => f.write_str(SERVICE_CA),
            Self::CertManager(certificate) => write!(f, "{CERT_MANAGER}{certificate}"),
        }
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        match text.trim() {
            "" | OWN => Ok(Self::Own),
            SERVICE_CA => Ok(Self::ServiceCa),
            other => match other.strip_prefix(CERT_MANAGER).and_then(|rest| rest.split_once('/')) {
                Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                    Ok(Self::CertManager(format!("{namespace}/{name}")))
                }
                _ => Err(SourceError),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_nothing_else() {
        for source in [Source::Own, Source::ServiceCa, Source::CertManager("ns/cert".to_owned())] {
            assert_eq!(source.to_string().parse(), Ok(source));
        }
        assert_eq!("".parse(), Ok(Source::Own));
        for bad in
            ["service_ca", "cert-manager", "cert-manager:cert", "cert-manager:/cert", "cert-manager:ns/"]
        {
            assert_eq!(bad.parse::<Source>(), Err(SourceError), "{bad}");
        }
    }
}
