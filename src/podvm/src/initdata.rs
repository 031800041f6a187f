//! Initdata: the TOML text by which a pod's owner configures the attested parts of the guest.
//!
//! Wire forms: raw TOML (what current shims send), and base64(gzip(TOML)) (what old shims send, what a global setting holds, and
//! what goes to the guest). The digest is over the exact TOML bytes, so those are kept as they came and packing again is harmless.
//! Where the digest is put in a VM's evidence is the provider's and the guest's business.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::read::MultiGzDecoder;
use flate2::{Compression, GzBuilder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// The most TOML we accept, in bytes: also the bound when unpacking.
pub const MAX_TOML: usize = 1 << 20;
/// Base64 of the three bytes every gzip file begins with.
const GZIP_IN_BASE64: &str = "H4sI";
/// Standard base64; old shims wrote it with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a text is no initdata.
#[derive(Debug, thiserror::Error)]
pub enum InitDataError {
    /// More than [`MAX_TOML`], packed or unpacked.
    #[error("more than {MAX_TOML} bytes of initdata")]
    TooLarge,
    /// Looks encoded and is not.
    #[error("the base64 text cannot be decoded")]
    Base64(#[source] base64::DecodeError),
    /// The decoded bytes are no gzip file.
    #[error("the gzip data cannot be unpacked")]
    Gzip(#[source] std::io::Error),
    /// The unpacked bytes are no text.
    #[error("the unpacked initdata is not UTF-8 text")]
    NotText(#[source] std::string::FromUtf8Error),
    /// Not TOML, or a key is missing or of another type. Location and reason only, because a value may be a secret.
    #[error("not TOML with the texts `version` and `algorithm` and the table `data` of texts: {reason}{}", .line.map(|n| format!(" (line {n})")).unwrap_or_default())]
    Toml {
        /// What the parser says.
        reason: String,
        /// The line, counted from 1, where it is known.
        line: Option<usize>,
    },
    /// A hash nobody in the chain knows; the Go shim would crash over it.
    #[error("algorithm {0:?} is unknown; want sha256, sha384 or sha512")]
    Algorithm(String),
    /// `version` is the empty text.
    #[error("`version` is empty; want a text such as 0.1.0")]
    Version,
}

/// The hash over initdata that ends up in the VM's evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// 32 bytes.
    Sha256,
    /// 48 bytes.
    Sha384,
    /// 64 bytes.
    Sha512,
}

impl Algorithm {
    fn from_name(name: &str) -> Result<Self, InitDataError> {
        match name {
            "sha256" => Ok(Self::Sha256),
            "sha384" => Ok(Self::Sha384),
            "sha512" => Ok(Self::Sha512),
            other => Err(InitDataError::Algorithm(other.chars().take(20).collect())),
        }
    }

    /// The name as initdata spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }
}

/// Initdata, checked. Equal when the TOML bytes are equal; stored as that text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InitData {
    toml: String,
    algorithm: Algorithm,
    data: BTreeMap<String, String>,
}

/// The document; keys of later versions are left alone.
#[derive(Deserialize)]
struct Document {
    version: String,
    algorithm: String,
    /// Not a map of texts at once: the parser's error would show a value that is none.
    data: Option<toml::Value>,
}

impl Document {
    fn data(self) -> Result<BTreeMap<String, String>, InitDataError> {
        let fault = |reason: String| InitDataError::Toml { reason, line: None };
        let table = match self.data {
            None => return Ok(BTreeMap::new()),
            Some(toml::Value::Table(table)) => table,
            Some(_) => return Err(fault("`data` is no table".into())),
        };
        let text = |(key, value): (String, toml::Value)| match value {
            toml::Value::String(text) => Ok((key, text)),
            _ => Err(fault(format!("`data.{}` is no text", key.chars().take(40).collect::<String>()))),
        };
        table.into_iter().map(text).collect()
    }
}

impl TryFrom<String> for InitData {
    type Error = InitDataError;

    fn try_from(toml: String) -> Result<Self, InitDataError> {
        Self::from_toml(&toml)
    }
}

impl From<InitData> for String {
    fn from(initdata: InitData) -> Self {
        initdata.toml
    }
}

impl InitData {
    /// Reads either wire form.
    ///
    /// # Errors
    /// When it is neither, too large, or a key is missing or wrong.
    pub fn from_annotation(value: &str) -> Result<Self, InitDataError> {
        if value.trim_start().starts_with(GZIP_IN_BASE64) {
            Self::from_encoded(value)
        } else {
            Self::from_toml(value)
        }
    }

    /// Reads base64(gzip(TOML)); white space in the base64 text is ignored.
    ///
    /// # Errors
    /// As [`InitData::from_annotation`].
    pub fn from_encoded(value: &str) -> Result<Self, InitDataError> {
        // Base64 of an incompressible MAX_TOML, with room for gzip's own bytes and line ends.
        if value.len() > MAX_TOML * 3 / 2 {
            return Err(InitDataError::TooLarge);
        }
        let packed: String = value.split_ascii_whitespace().collect();
        let packed = BASE64.decode(packed).map_err(InitDataError::Base64)?;
        Self::from_toml(&String::from_utf8(unpack(&packed)?).map_err(InitDataError::NotText)?)
    }

    /// Reads the TOML text itself.
    ///
    /// # Errors
    /// As [`InitData::from_annotation`].
    pub fn from_toml(text: &str) -> Result<Self, InitDataError> {
        if text.len() > MAX_TOML {
            return Err(InitDataError::TooLarge);
        }
        let document: Document = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .and_then(|span| text.get(..span.start))
                .map(|before| before.lines().count().max(1));
            InitDataError::Toml { reason: error.message().chars().take(160).collect(), line }
        })?;
        if document.version.is_empty() {
            return Err(InitDataError::Version);
        }
        let algorithm = Algorithm::from_name(&document.algorithm)?;
        Ok(Self { toml: text.to_owned(), algorithm, data: document.data()? })
    }

    /// The TOML text exactly as its author wrote it.
    #[must_use]
    pub fn as_toml(&self) -> &str {
        &self.toml
    }

    /// The hash its author chose.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// File name → content, as `aa.toml`, `cdh.toml`, `policy.rego`.
    #[must_use]
    pub fn data(&self) -> &BTreeMap<String, String> {
        &self.data
    }

    /// The hash of the exact TOML bytes; as long as the algorithm says.
    #[must_use]
    pub fn digest(&self) -> Vec<u8> {
        match self.algorithm {
            Algorithm::Sha256 => Sha256::digest(&self.toml).to_vec(),
            Algorithm::Sha384 => Sha384::digest(&self.toml).to_vec(),
            Algorithm::Sha512 => Sha512::digest(&self.toml).to_vec(),
        }
    }

    /// [`InitData::digest`] in lowercase hexadecimal.
    #[must_use]
    pub fn digest_hex(&self) -> String {
        hex::encode(self.digest())
    }

    /// base64(gzip(TOML)) for the guest. The same TOML gives the same text: no time, no file name, no operating system.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut packer =
            GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::default());
        #[expect(
            clippy::expect_used,
            reason = "writing to a Vec cannot fail, and the encoder fails only when its writer does"
        )]
        let packed = packer
            .write_all(self.toml.as_bytes())
            .and_then(|()| packer.finish())
            .expect("a Vec takes every write");
        BASE64.encode(packed)
    }
}

/// Unpacks at most [`MAX_TOML`] bytes, however many the packed data would give.
fn unpack(packed: &[u8]) -> Result<Vec<u8>, InitDataError> {
    let mut unpacked = Vec::new();
    MultiGzDecoder::new(packed)
        .take(MAX_TOML as u64 + 1)
        .read_to_end(&mut unpacked)
        .map_err(InitDataError::Gzip)?;
    if unpacked.len() > MAX_TOML { Err(InitDataError::TooLarge) } else { Ok(unpacked) }
}

impl PartialEq for InitData {
    fn eq(&self, other: &Self) -> bool {
        self.toml == other.toml
    }
}

impl Eq for InitData {}

/// Shows what identifies it, not what is in it: a data file may hold credentials.
impl fmt::Debug for InitData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InitData({}:{}, {} bytes)", self.algorithm.name(), self.digest_hex(), self.toml.len())
    }
}

#[cfg(test)]
mod tests;
