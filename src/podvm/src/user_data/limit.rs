//! How much user data a provider takes.

use std::fmt;

use super::{APF_PATH, AUTH_PATH, File, INITDATA_PATH, MAX_DOCUMENT, render};

/// Which form of the document a provider's limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// The document itself.
    Raw,
    /// The document in base64.
    Base64,
}

/// A provider's limit on user data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Bytes in the form the provider counts.
    pub bytes: usize,
    /// That form.
    pub encoding: Encoding,
}

impl Limit {
    /// The largest document in bytes, before any encoding.
    #[must_use]
    pub const fn document(self) -> usize {
        match self.encoding {
            Encoding::Raw => self.bytes,
            Encoding::Base64 => self.bytes / 4 * 3,
        }
    }
}

/// The limit of a provider by its name in configuration; `None` for one we know nothing about.
#[must_use]
pub fn limit_of(provider: &str) -> Option<Limit> {
    let (encoding, bytes) = match provider {
        "aws" => (Encoding::Raw, 16 << 10),
        "azure" => (Encoding::Base64, 64 << 10),
        "gcp" => (Encoding::Base64, 256 << 10),
        "ibmcloud" => (Encoding::Raw, 64 << 10),
        "ibmcloud-powervs" => (Encoding::Base64, 63 << 10),
        "alibabacloud" => (Encoding::Base64, 32 << 10),
        // fw_cfg itself would take more; the guest reads no more.
        "qemu" => (Encoding::Raw, MAX_DOCUMENT),
        _ => return None,
    };
    Some(Limit { bytes, encoding })
}

/// User data that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooLarge {
    /// The whole document in bytes.
    pub len: usize,
    /// What the provider takes, in bytes.
    pub limit: usize,
    /// Each file's path and its share of the document in bytes, largest first.
    pub parts: Vec<(String, usize)>,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the VM's user data has {} bytes and the provider takes at most {}: ",
            self.len, self.limit
        )?;
        for (i, (path, bytes)) in self.parts.iter().enumerate() {
            write!(f, "{}{path} {bytes}", if i == 0 { "" } else { ", " })?;
        }
        write!(f, "; {} bytes too many. {}", self.len.saturating_sub(self.limit), self.advice())
    }
}

impl std::error::Error for TooLarge {}

impl TooLarge {
    /// What to do about it: about the largest part that the user has in hand.
    fn advice(&self) -> &'static str {
        let in_hand = self.parts.iter().find(|(path, _)| path == AUTH_PATH || path == INITDATA_PATH);
        match in_hand.map(|(path, _)| path.as_str()) {
            Some(AUTH_PATH) => "Give the pod and its service account fewer image pull secrets",
            Some(_) => {
                "Shorten the initdata annotation or the global INITDATA (often policy.rego is its largest part)"
            }
            None if self.parts.iter().any(|(path, _)| path == APF_PATH) => {
                "It grows with the pod's routes, permanent neighbours and certificates"
            }
            None => "Shorten its files",
        }
    }
}

pub(super) fn check(files: &[File], len: usize, limit: usize) -> Result<(), TooLarge> {
    if len <= limit {
        return Ok(());
    }
    let mut parts: Vec<_> = files.iter().map(|file| (file.path.clone(), render::entry(file).len())).collect();
    parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    Err(TooLarge { len, limit, parts })
}
