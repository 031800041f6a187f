//! Reading Debian packages: `dpkg-deb` unpacks to a tar stream, which is read without touching the disk.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Why a package cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// `dpkg-deb` does not start.
    #[error(
        "cannot run dpkg-deb (images are built on Debian or Ubuntu, or where the package dpkg is installed)"
    )]
    Program(#[source] io::Error),
    /// `dpkg-deb` failed.
    #[error("dpkg-deb cannot read {}: {stderr}", path.display())]
    Failed {
        /// The package.
        path: PathBuf,
        /// What it said.
        stderr: String,
    },
    /// The stream broke off.
    #[error("cannot read the files of {}", path.display())]
    Stream {
        /// The package.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The regular files of a package whose path (relative to the root) `wanted` accepts.
///
/// # Errors
/// When the package is broken or `dpkg-deb` missing.
pub(crate) fn read_files(
    package: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Vec<u8>>, DebError> {
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(DebError::Program)?;
    let read = match child.stdout.take() {
        Some(stream) => read_tar(stream, wanted),
        None => Err(io::Error::other("dpkg-deb has no output")),
    };
    // dpkg-deb's own words are the better reason where both sides failed.
    finish(child, package)?;
    read.map_err(|source| DebError::Stream { path: package.to_owned(), source })
}

fn read_tar(stream: impl Read, wanted: impl Fn(&str) -> bool) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        if wanted(&path) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            files.insert(path, bytes);
        }
    }
    // To the end of the stream, or dpkg-deb would complain of a broken pipe.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(files)
}

fn finish(child: Child, package: &Path) -> Result<(), DebError> {
    let output = child.wait_with_output().map_err(DebError::Program)?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DebError::Failed { path: package.to_owned(), stderr })
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerpods_test_require::{Need, require};

    fn made_package(dir: &Path) -> PathBuf {
        std::fs::create_dir_all(dir.join("p/DEBIAN")).unwrap();
        std::fs::create_dir_all(dir.join("p/boot")).unwrap();
        let control = "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n";
        std::fs::write(dir.join("p/DEBIAN/control"), control).unwrap();
        std::fs::write(dir.join("p/boot/vmlinuz-1"), "kernel").unwrap();
        std::fs::write(dir.join("p/boot/other"), "other").unwrap();
        let deb = dir.join("x.deb");
        let made = Command::new("dpkg-deb").arg("--build").arg(dir.join("p")).arg(&deb).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        deb
    }

    #[test]
    fn only_wanted_files_are_read() {
        if !require("only_wanted_files_are_read", &[Need::Program("dpkg-deb")]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let files = read_files(&made_package(dir.path()), |path| path.contains("vmlinuz")).unwrap();
        assert_eq!(
            files.into_iter().collect::<Vec<_>>(),
            [("boot/vmlinuz-1".to_owned(), b"kernel".to_vec())]
        );
    }

    #[test]
    fn a_broken_package_is_reported_in_dpkgs_words() {
        if !require("a_broken_package_is_reported_in_dpkgs_words", &[Need::Program("dpkg-deb")]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broken.deb");
        std::fs::write(&path, "no package").unwrap();
        let error = read_files(&path, |_| true).unwrap_err();
        assert!(matches!(error, DebError::Failed { .. }), "{error:?}");
    }
}
