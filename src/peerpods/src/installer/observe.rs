//! Reads what there is of a host. No decisions.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use peerpods_podvm::node_files::SHIM_CONFIGURATION;

use super::Runtime;
use super::containerd::{self, Config};
use super::host::{File, Host, HostError};
use super::plan::{CRIO_DROP_IN, Observed};
use super::state::{self, State};
use super::units::{UnitError, Units};

/// Where the shim may be, the likelier first.
const SHIMS: [&str; 4] = [
    "/opt/kata/bin/containerd-shim-kata-v2",
    "/usr/local/bin/containerd-shim-kata-v2",
    "/usr/bin/containerd-shim-kata-v2",
    "/opt/kata/runtime-rs/bin/containerd-shim-kata-v2",
];
/// Where its configuration for VMs on the node may be, in its own order.
const LOCAL: [&str; 3] = [
    "/etc/kata-containers/configuration.toml",
    "/opt/kata/share/defaults/kata-containers/configuration.toml",
    "/usr/share/defaults/kata-containers/configuration.toml",
];
/// What CRI-O reads.
const CRIO: &str = "/etc/crio/crio.conf";
const CRIO_DIRECTORY: &str = "/etc/crio/crio.conf.d";
/// Our files, and what may be ours.
const OURS: [&str; 4] = [SHIM_CONFIGURATION, containerd::DROP_IN, CRIO_DROP_IN, containerd::MAIN];

/// Why a host could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// Its files.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Its container runtimes.
    #[error(transparent)]
    Units(#[from] UnitError),
}

/// What there is of a host.
///
/// # Errors
/// What could not be read; what is not there is none.
pub async fn observe(host: &Host, units: &dyn Units) -> Result<Observed, ObserveError> {
    let mut observed = Observed {
        shim: first(host, &SHIMS)?,
        local: first(host, &LOCAL)?,
        missing: missing(host)?,
        state: host.read(state::PATH)?.text().map(|text| State::read(text).unwrap_or_default()),
        now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        ..Observed::default()
    };
    for runtime in Runtime::ALL {
        if units.runs(runtime).await? {
            observed.running.insert(runtime);
        }
    }
    for path in OURS {
        look(host, &mut observed, path)?;
    }
    observed.imported = imported(host, observed.file(containerd::MAIN))?;
    observed.of_crio = of_crio(host)?;
    for path in observed.imported.clone().iter().chain(&observed.of_crio.clone()) {
        look(host, &mut observed, path)?;
    }
    Ok(observed)
}

/// Removes what a run that was cut off left half written.
///
/// # Errors
/// What could not be removed.
pub fn sweep(host: &Host) -> Result<(), HostError> {
    let main = host.read(containerd::MAIN)?;
    let imported = imported(host, &main)?;
    let own = OURS.iter().copied().chain([state::PATH]);
    own.chain(imported.iter().map(String::as_str)).try_for_each(|path| host.sweep(path))
}

fn look(host: &Host, observed: &mut Observed, path: &str) -> Result<(), HostError> {
    let found = host.read(path)?;
    if found != File::Absent {
        observed.files.insert(path.to_owned(), found);
    }
    Ok(())
}

fn first(host: &Host, paths: &[&str]) -> Result<Option<String>, HostError> {
    for path in paths {
        if host.has(path)? {
            return Ok(Some((*path).to_owned()));
        }
    }
    Ok(None)
}

/// Directories of our files that are not there.
fn missing(host: &Host) -> Result<Vec<String>, HostError> {
    let mut missing = BTreeSet::new();
    for path in OURS {
        for (at, _) in path.match_indices('/').filter(|(at, _)| *at > 0) {
            let directory = &path[..at];
            if !host.has(directory)? {
                missing.insert(directory.to_owned());
            }
        }
    }
    // Sorted, an outer one comes before those in it.
    Ok(missing.into_iter().collect())
}

/// What containerd imports and is there, in its order. Imports of imports are left out: nobody has them.
fn imported(host: &Host, main: &File) -> Result<Vec<String>, HostError> {
    let config = main.text().and_then(|text| Config::read(text).ok());
    let patterns = config.map(|config| config.imports()).unwrap_or_default();
    let mut found: Vec<String> = Vec::new();
    for pattern in patterns {
        let (directory, _) = pattern.rsplit_once('/').unwrap_or(("", ""));
        let names = host.list(directory)?;
        let paths = names.iter().map(|name| format!("{directory}/{name}"));
        let new = |path: &String| {
            containerd::matches(&pattern, path) && path != containerd::DROP_IN && !found.contains(path)
        };
        let paths: Vec<String> = paths.filter(new).collect();
        found.extend(paths);
    }
    Ok(found)
}

fn of_crio(host: &Host) -> Result<Vec<String>, HostError> {
    let names = host.list(CRIO_DIRECTORY)?;
    let inside =
        names.iter().map(|name| format!("{CRIO_DIRECTORY}/{name}")).filter(|path| path != CRIO_DROP_IN);
    Ok(std::iter::once(CRIO.to_owned()).chain(inside).collect())
}
