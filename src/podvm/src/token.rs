//! The one-time token by which a guest that makes its own key is admitted, and the name of that key.
//!
//! Plain data: how the two are used is `peerpods-agentlink`'s affair (`admission`), which also makes tokens.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// 32 random bytes, base64 on the wire. Prints nothing, and is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct AdmissionToken(Zeroizing<[u8; AdmissionToken::LENGTH]>);

impl AdmissionToken {
    /// Its length in bytes.
    pub const LENGTH: usize = 32;

    /// Wraps what a random number generator gave.
    #[must_use]
    pub fn new(bytes: Zeroizing<[u8; Self::LENGTH]>) -> Self {
        Self(bytes)
    }

    /// The bytes, for whoever proves to know them; not for messages.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &*self.0
    }

    fn from_base64(text: &str) -> Option<Self> {
        // Room for what is too long as well: a buffer that is too small is an error, and so is one that is not filled.
        let mut bytes = Zeroizing::new([0; Self::LENGTH]);
        let length = STANDARD.decode_slice(text, &mut *bytes).ok()?;
        (length == Self::LENGTH).then_some(Self(bytes))
    }
}

impl fmt::Debug for AdmissionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl Serialize for AdmissionToken {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let text = Zeroizing::new(STANDARD.encode(self.0.as_slice()));
        to.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for AdmissionToken {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(from)?);
        // The text itself is never part of the message.
        Self::from_base64(&text).ok_or_else(|| serde::de::Error::custom("want base64 of 32 bytes"))
    }
}

/// A guest's public key, named by the SHA-256 over its SubjectPublicKeyInfo (DER); hexadecimal in text. No secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GuestKey(pub [u8; 32]);

impl fmt::Display for GuestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for GuestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that names no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a guest's key is named by 64 hexadecimal digits")]
pub struct GuestKeyError;

impl FromStr for GuestKey {
    type Err = GuestKeyError;

    fn from_str(text: &str) -> Result<Self, GuestKeyError> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| GuestKeyError)?;
        Ok(Self(hash))
    }
}

impl Serialize for GuestKey {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GuestKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_wire_and_shows_nothing() {
        let token = AdmissionToken::new(Zeroizing::new([7; 32]));
        let json = serde_json::to_string(&token).unwrap();
        assert_eq!(json, "\"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\"");
        assert_eq!(serde_json::from_str::<AdmissionToken>(&json).unwrap(), token);
        assert_eq!(format!("{token:?}"), "..");
    }

    #[test]
    fn a_token_of_another_length_is_refused_and_not_repeated() {
        for bytes in [0, 16, 31, 33, 64] {
            let text = STANDARD.encode(vec![0x5a; bytes]);
            let error = serde_json::from_str::<AdmissionToken>(&format!("\"{text}\"")).unwrap_err();
            let text = if text.is_empty() { "nothing" } else { &text };
            assert!(!error.to_string().contains(text), "{error}");
        }
        assert!(serde_json::from_str::<AdmissionToken>("\"!\"").is_err());
    }

    #[test]
    fn a_key_is_named_in_hexadecimal() {
        let key = GuestKey([0xab; 32]);
        assert_eq!(key.to_string(), "ab".repeat(32));
        assert_eq!("ab".repeat(32).parse(), Ok(key));
        assert_eq!("ab".repeat(31).parse::<GuestKey>(), Err(GuestKeyError));
    }
}
