//! Identifiers that come from outside and end up in paths, names and tags, so they are checked once, here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is no identifier of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The id is empty.
    #[error("{what} is empty")]
    Empty {
        /// Which id was being read.
        what: &'static str,
    },
    /// The id is longer than [`MAX_LEN`].
    #[error("{what} has {len} characters; at most {MAX_LEN} are allowed")]
    TooLong {
        /// Which id was being read.
        what: &'static str,
        /// How long it is.
        len: usize,
    },
    /// The id has a character outside `[A-Za-z0-9_.-]`.
    #[error("{what} {shown:?} has the character {bad:?}; only letters, digits, '_', '.' and '-' are allowed")]
    BadCharacter {
        /// Which id was being read.
        what: &'static str,
        /// The id, cut to a length fit for a message.
        shown: String,
        /// The first offending character.
        bad: char,
    },
    /// The id is `.` or `..`, which would name a directory.
    #[error("{what} must not be {shown:?}")]
    Dots {
        /// Which id was being read.
        what: &'static str,
        /// The id.
        shown: String,
    },
}

/// The longest id we accept; containerd and CRI-O use 64 hexadecimal digits.
pub const MAX_LEN: usize = 64;

fn check(what: &'static str, text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { what });
    }
    if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))) {
        let shown = text.chars().take(MAX_LEN).collect();
        return Err(IdError::BadCharacter { what, shown, bad });
    }
    if text.len() > MAX_LEN {
        return Err(IdError::TooLong { what, len: text.len() });
    }
    if text == "." || text == ".." {
        return Err(IdError::Dots { what, shown: text.to_owned() });
    }
    Ok(())
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                check($what, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                check($what, &text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

identifier!(
    /// A pod sandbox, as the container runtime names it. One sandbox has at most one VM.
    SandboxId,
    "sandbox id"
);
identifier!(
    /// The cluster that owns a VM: the UID of the `kube-system` namespace, else an id made once on this node.
    ClusterId,
    "cluster id"
);

impl SandboxId {
    /// The first eight characters, as they appear in VM names and log lines.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_id_is_accepted_and_shortened() {
        let id: SandboxId = "0123456789abcdef".repeat(4).parse().unwrap();
        assert_eq!(id.short(), "01234567");
        assert_eq!("ab".parse::<SandboxId>().unwrap().short(), "ab");
    }

    #[test]
    fn what_could_leave_its_directory_is_refused() {
        for bad in ["", ".", "..", "a/b", "../x", "a b", "é", "a\0"] {
            assert!(bad.parse::<SandboxId>().is_err(), "{bad:?} was accepted");
        }
        assert_eq!(
            "x".repeat(300).parse::<SandboxId>(),
            Err(IdError::TooLong { what: "sandbox id", len: 300 })
        );
    }
}
