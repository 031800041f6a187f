//! Where the agent listens, and the VM's userland: the kata-agent's own command line and configuration file, as far as they matter
//! here, with one key of ours.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::image::Userland;

/// The variable that wins over the file.
pub const VARIABLE: &str = "KATA_AGENT_SERVER_ADDR";

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The file is not TOML, or `server_addr` is no text.
    #[error("cannot understand {path:?}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: toml::de::Error,
    },
    /// No address anywhere.
    #[error("no address to listen on: pass --config with the key server_addr, or set {VARIABLE}")]
    NoAddress,
    /// An address of a kind we do not serve.
    #[error("address {address:?} is not of the form unix:///absolute/path")]
    Address {
        /// The address.
        address: String,
    },
}

/// The keys we read; the kata-agent's many others are none of our business.
#[derive(Debug, Default, Deserialize)]
struct Keys {
    server_addr: Option<String>,
    /// Ours: an absolute directory.
    userland: Option<PathBuf>,
}

/// What the agent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The path of the socket.
    pub socket: PathBuf,
    /// What containers of images are made of.
    pub userland: Userland,
}

/// The configuration: the address from the variable where it is set, else from the file.
///
/// # Errors
/// [`ConfigError`].
pub fn load(file: Option<&Path>, variable: Option<OsString>) -> Result<Config, ConfigError> {
    let keys = file.map(read).transpose()?.unwrap_or_default();
    let address = variable.map(|set| set.to_string_lossy().into_owned()).or(keys.server_addr);
    let socket = parse(&address.ok_or(ConfigError::NoAddress)?)?;
    Ok(Config { socket, userland: keys.userland.map_or_else(Userland::default, Userland) })
}

fn read(path: &Path) -> Result<Keys, ConfigError> {
    let text =
        fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
}

fn parse(address: &str) -> Result<PathBuf, ConfigError> {
    match address.strip_prefix("unix://").map(Path::new) {
        Some(path) if path.is_absolute() => Ok(path.to_owned()),
        _ => Err(ConfigError::Address { address: address.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn the_variable_wins_over_the_file() {
        let file = file("server_addr = \"unix:///run/a.sock\"\nguest_components_procs = \"none\"\n");
        let socket = |file, variable| load(file, variable).unwrap().socket;
        assert_eq!(socket(Some(file.path()), None), Path::new("/run/a.sock"));
        let variable = Some(OsString::from("unix:///run/b.sock"));
        assert_eq!(socket(Some(file.path()), variable), Path::new("/run/b.sock"));
    }

    #[test]
    fn keys_of_the_kata_agent_do_not_disturb() {
        let file = file("server_addr = \"unix:///a\"\n[hotplug_timeout]\nsecs = 3\nnanos = 0\n");
        let config = load(Some(file.path()), None).unwrap();
        assert_eq!(config, Config { socket: "/a".into(), userland: Userland::default() });
    }

    #[test]
    fn the_userland_can_be_elsewhere() {
        let file = file("server_addr = \"unix:///a\"\nuserland = \"/b\"\n");
        assert_eq!(load(Some(file.path()), None).unwrap().userland, Userland("/b".into()));
    }

    #[test]
    fn no_address_or_another_kind_is_an_error() {
        assert!(matches!(load(None, None), Err(ConfigError::NoAddress)));
        assert!(matches!(load(Some(file("").path()), None), Err(ConfigError::NoAddress)));
        for bad in ["vsock://-1:1024", "unix://relative", "/run/x"] {
            assert!(matches!(parse(bad), Err(ConfigError::Address { .. })), "{bad}");
        }
    }
}
