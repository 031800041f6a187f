//! Which packages an image is made from: `pins.toml`, compiled in, or another file of that form.

use std::path::{Path, PathBuf};

use serde::Deserialize;

const BUILT_IN: &str = include_str!("../pins.toml");

/// Why there are no pins.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// The file cannot be read.
    #[error("cannot read the pins file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is no pins file.
    #[error("{} is no pins file (see images/pins.toml for one)", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
}

/// Every package an image is made from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pins {
    /// The guest's kernel and its modules.
    pub(crate) kernel: Pin,
    /// The userland's one program.
    pub(crate) busybox: Pin,
}

/// One package, down to the byte.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pin {
    /// The package's name.
    pub(crate) package: String,
    /// Its version, epoch included.
    pub(crate) version: String,
    /// Debian's name of the architecture.
    pub(crate) architecture: String,
    /// Of the .deb file, in hexadecimal.
    pub(crate) sha256: String,
    /// The package that depends on what replaces this one; absent when the name stays.
    pub(crate) successor: Option<String>,
}

impl Pin {
    /// The file name apt gives the package; the epoch's colon is escaped.
    pub(crate) fn file_name(&self) -> String {
        let version = self.version.replace(':', "%3a");
        format!("{}_{version}_{}.deb", self.package, self.architecture)
    }
}

impl Pins {
    /// Reads the pins from `file`, or takes those compiled in.
    ///
    /// # Errors
    /// When the file is missing or no pins file.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, PinsError> {
        let text = match file {
            None => BUILT_IN.to_owned(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| PinsError::Read { path: path.to_owned(), source })?,
        };
        let path = file.unwrap_or(Path::new("pins.toml")).to_owned();
        toml::from_str(&text).map_err(|source| PinsError::Parse { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pins_we_ship_are_whole() {
        let pins = Pins::load(None).unwrap();
        for pin in [&pins.kernel, &pins.busybox] {
            assert_eq!(pin.sha256.len(), 64, "{pin:?}");
            assert!(hex::decode(&pin.sha256).is_ok());
        }
        assert!(pins.kernel.successor.is_some(), "a kernel's name changes with its version");
    }

    #[test]
    fn the_file_name_is_apts_own() {
        assert_eq!(
            Pins::load(None).unwrap().busybox.file_name(),
            "busybox-static_1%3a1.35.0-4+deb12u1+b1_amd64.deb"
        );
    }

    #[test]
    fn a_missing_or_broken_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pins.toml");
        assert!(Pins::load(Some(&path)).unwrap_err().to_string().contains("pins.toml"));
        std::fs::write(&path, "[kernel]\n").unwrap();
        assert!(Pins::load(Some(&path)).unwrap_err().to_string().contains("is no pins file"));
    }
}
