//! Getting packages: from the cache by hash, else as pinned, else today's candidate with a warning.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest, Sha256};

use crate::pins::Pin;

/// Why there is no package.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// One of apt's programs does not start.
    #[error("cannot run {program} (images are built on Debian or Ubuntu, or from a filled cache)")]
    Program {
        /// The program.
        program: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The cache directory cannot be used.
    #[error("cannot use the package cache at {}", path.display())]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The package is not in the cache and must not be downloaded.
    #[error("{file} is not in the cache {} and the build is offline", cache.display())]
    Offline {
        /// The file that was looked for.
        file: String,
        /// Where.
        cache: PathBuf,
    },
    /// Neither the pinned package nor a replacement can be downloaded.
    #[error("cannot download {package} {version}: {reason} (try `apt-get update` as root)")]
    Download {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// What apt said.
        reason: String,
    },
    /// What was downloaded is not what the pin or the package index says.
    #[error("{file} has the sha256 {got} and should have {expected}")]
    Hash {
        /// The file.
        file: String,
        /// What it has.
        got: String,
        /// What it should have.
        expected: String,
    },
}

/// A package on this machine, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    /// What it is; other than the pin when that was gone.
    pub(crate) pin: Pin,
    /// The .deb file.
    pub(crate) path: PathBuf,
    /// What the person who builds should know.
    pub(crate) warning: Option<String>,
}

/// May packages be downloaded?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// Yes.
    Allowed,
    /// No: only the cache.
    Forbidden,
}

/// Finds the pinned package in the cache or downloads it; takes today's candidate when the archive has dropped it.
///
/// # Errors
/// When there is no package at all.
pub(crate) fn fetch(pin: &Pin, cache: &Path, network: Network) -> Result<Package, PackageError> {
    if let Some(path) = cached(pin, cache)? {
        return Ok(Package { pin: pin.clone(), path, warning: None });
    }
    if network == Network::Forbidden {
        return Err(PackageError::Offline { file: pin.file_name(), cache: cache.to_owned() });
    }
    match download(pin, cache) {
        Ok(path) => Ok(Package { pin: pin.clone(), path, warning: None }),
        Err(gone @ PackageError::Download { .. }) => replace(pin, cache, gone),
        Err(other) => Err(other),
    }
}

/// Today's candidate instead of a pin that is `gone`; the first error stands when the archive has nothing else.
fn replace(pin: &Pin, cache: &Path, gone: PackageError) -> Result<Package, PackageError> {
    let Some(candidate) = candidate(pin)?.filter(|candidate| candidate != pin) else {
        return Err(gone);
    };
    let path = match cached(&candidate, cache)? {
        Some(path) => path,
        None => download(&candidate, cache)?,
    };
    let warning = format!(
        "the archive no longer has {} {}; {} {} was taken instead (renew images/pins.toml)",
        pin.package, pin.version, candidate.package, candidate.version
    );
    Ok(Package { pin: candidate, path, warning: Some(warning) })
}

/// The pinned file in the cache, if it is there and whole. A file with another hash is left to be replaced.
fn cached(pin: &Pin, cache: &Path) -> Result<Option<PathBuf>, PackageError> {
    let path = cache.join(pin.file_name());
    match sha256_of(&path) {
        Ok(sum) => Ok((sum == pin.sha256).then_some(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PackageError::Cache { path, source }),
    }
}

/// Downloads into a directory of its own first, so that the cache never holds half a file and builds do not meet.
fn download(pin: &Pin, cache: &Path) -> Result<PathBuf, PackageError> {
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |source| PackageError::Cache { path, source }
    };
    fs::create_dir_all(cache).map_err(unusable(cache))?;
    let scratch = tempfile::Builder::new().prefix(".download").tempdir_in(cache).map_err(unusable(cache))?;
    let name = format!("{}={}", pin.package, pin.version);
    let output = apt_get(&name, scratch.path())?;
    let file = scratch.path().join(pin.file_name());
    if !output.status.success() || !file.is_file() {
        return Err(download_failed(pin, &output));
    }
    let got = sha256_of(&file).map_err(unusable(&file))?;
    if got != pin.sha256 {
        return Err(PackageError::Hash { file: pin.file_name(), got, expected: pin.sha256.clone() });
    }
    let path = cache.join(pin.file_name());
    fs::rename(&file, &path).map_err(unusable(&path))?;
    Ok(path)
}

fn apt_get(package: &str, directory: &Path) -> Result<Output, PackageError> {
    Command::new("apt-get")
        // The sandbox user `_apt` could not write into our directory; apt would warn and do the same as this.
        .args(["-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "download", package])
        .current_dir(directory)
        .env("LC_ALL", "C")
        .output()
        .map_err(|source| PackageError::Program { program: "apt-get", source })
}

fn download_failed(pin: &Pin, output: &Output) -> PackageError {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = stderr.lines().filter(|line| line.starts_with("E:")).collect();
    let reason = if said.is_empty() {
        format!("apt-get made no {} ({})", pin.file_name(), output.status)
    } else {
        said.join("; ")
    };
    PackageError::Download { package: pin.package.clone(), version: pin.version.clone(), reason }
}

/// What the archive has today in place of the pin; `None` when it has nothing.
fn candidate(pin: &Pin) -> Result<Option<Pin>, PackageError> {
    let name = match &pin.successor {
        None => Some(pin.package.clone()),
        Some(meta) => depended_on(&apt_cache_show(meta)?, "linux-image-"),
    };
    let Some(name) = name else { return Ok(None) };
    Ok(index_entry(&apt_cache_show(&name)?, pin))
}

fn apt_cache_show(package: &str) -> Result<String, PackageError> {
    let output = Command::new("apt-cache")
        .args(["show", "--no-all-versions", package])
        .env("LC_ALL", "C")
        .output()
        .map_err(|source| PackageError::Program { program: "apt-cache", source })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn field<'a>(entry: &'a str, key: &str) -> Option<&'a str> {
    entry.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim()))
}

/// The first package with this prefix that an index entry depends on.
fn depended_on(entry: &str, prefix: &str) -> Option<String> {
    let name = field(entry, "Depends")?.split([',', '|', ' ', '(']).find(|word| word.starts_with(prefix))?;
    Some(name.to_owned())
}

/// A pin made from an index entry.
fn index_entry(entry: &str, old: &Pin) -> Option<Pin> {
    Some(Pin {
        package: field(entry, "Package")?.to_owned(),
        version: field(entry, "Version")?.to_owned(),
        architecture: field(entry, "Architecture")?.to_owned(),
        sha256: field(entry, "SHA256")?.to_owned(),
        successor: old.successor.clone(),
    })
}

fn sha256_of(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut fs::File::open(path)?, &mut hasher)?;
    Ok(hex::encode(hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(content: &[u8]) -> Pin {
        Pin {
            package: "nonexistent-package".to_owned(),
            version: "1:2".to_owned(),
            architecture: "amd64".to_owned(),
            sha256: hex::encode(Sha256::digest(content)),
            successor: None,
        }
    }

    #[test]
    fn the_cache_is_used_by_hash_and_not_by_name() {
        let cache = tempfile::tempdir().unwrap();
        let pin = pin(b"right");
        let path = cache.path().join(pin.file_name());
        fs::write(&path, b"wrong").unwrap();
        let refused = fetch(&pin, cache.path(), Network::Forbidden);
        assert!(matches!(refused, Err(PackageError::Offline { .. })), "{refused:?}");
        fs::write(&path, b"right").unwrap();
        let found = fetch(&pin, cache.path(), Network::Forbidden).unwrap();
        assert_eq!((found.path, found.warning), (path, None));
    }

    #[test]
    fn the_candidate_is_read_from_the_index() {
        let meta =
            "Package: linux-image-cloud-amd64\nDepends: linux-image-6.12.95-cloud-amd64 (= 6.12.95-1)\n";
        assert_eq!(depended_on(meta, "linux-image-").as_deref(), Some("linux-image-6.12.95-cloud-amd64"));
        let entry = "Package: p\nVersion: 3\nArchitecture: amd64\nDescription: x\n SHA256: no\nSHA256: ab\n";
        let found = index_entry(entry, &pin(b"")).unwrap();
        assert_eq!((found.package.as_str(), found.version.as_str(), found.sha256.as_str()), ("p", "3", "ab"));
        assert_eq!(index_entry("", &pin(b"")), None);
    }

    #[test]
    fn a_package_nobody_has_is_an_error_in_apts_words() {
        use peerpods_test_require::{Need, require};
        let needs = [Need::Program("apt-get"), Need::Program("apt-cache")];
        if !require("a_package_nobody_has_is_an_error_in_apts_words", &needs) {
            return;
        }
        let cache = tempfile::tempdir().unwrap();
        let error = fetch(&pin(b""), &cache.path().join("new"), Network::Allowed).unwrap_err().to_string();
        assert!(error.contains("nonexistent-package") && error.contains("apt-get update"), "{error}");
    }
}
