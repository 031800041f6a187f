//! The one door of configuration: file, environment, flags; the later wins; every fault at once.
//!
//! *Observe*: [`load`] reads the file and the environment. *Decide*: [`check`] merges and judges without touching anything.
//! Nobody else in the program reads a variable. What a value means is decided by who uses it; here it is only well-formed.

#[cfg(feature = "aws")]
pub mod aws;
pub mod door;
pub mod duration;
pub mod fault;
pub mod keys;
pub mod kinds;
pub mod layers;
pub mod operator;
pub mod qemu;
pub mod settings;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use fault::{Fault, Faults, Origin};
pub use layers::{Environment, FlagValue, Layer, ProcessEnvironment};
pub use operator::OperatorSettings;
pub use settings::{Kubernetes, ProviderSettings, Role, Settings};

/// Where the file is when nobody says so; it may be absent.
pub const DEFAULT_FILE: &str = "/etc/peerpods/peerpods.toml";
/// The variable that names the file.
pub const FILE_VARIABLE: &str = "PEERPODS_CONFIG";

/// What the command line says about configuration.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The file named by `--config`.
    pub file: Option<PathBuf>,
    /// Every option that sets a key.
    pub flags: Vec<FlagValue>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or a file that was named is not there.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// What was read is not right.
    #[error(transparent)]
    Faults(#[from] Faults),
}

/// Reads all layers and judges them.
///
/// # Errors
/// [`ConfigError::Faults`] lists everything that is wrong, not only the first.
pub fn load(request: &Request, environment: &dyn Environment) -> Result<Settings, ConfigError> {
    let file = read_file(request, environment)?;
    let layers = vec![file, layers::environment(environment), layers::flags(&request.flags)];
    Ok(check(layers)?)
}

/// Merges layers, the later winning, and turns them into settings. Pure.
///
/// # Errors
/// Every fault of every layer.
pub fn check(layers: Vec<Layer>) -> Result<Settings, Faults> {
    settings::assemble(door::Door::new(layers))
}

fn read_file(request: &Request, environment: &dyn Environment) -> Result<Layer, ConfigError> {
    let from_variable = || environment.get(FILE_VARIABLE).filter(|value| !value.is_empty());
    let named = request.file.clone().or_else(|| from_variable().map(|value: OsString| value.into()));
    let path = named.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(layers::file(path, &text)),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(Layer::default()),
        Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
    }
}
