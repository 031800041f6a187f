//! The image's directory: made beside its place and put there in one step, so that nobody ever sees half an image.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use peerpods_podvm::image::{DESCRIPTION, INITRAMFS, KERNEL, QemuImage};
use sha2::{Digest, Sha256};

/// The image cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct OutputError {
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// An image's two large files.
pub(crate) struct Contents<'a> {
    /// The uncompressed kernel.
    pub(crate) kernel: &'a [u8],
    /// The initramfs.
    pub(crate) initramfs: &'a [u8],
}

impl Contents<'_> {
    /// File name → sha256 in hexadecimal, as the description has it.
    pub(crate) fn hashes(&self) -> BTreeMap<String, String> {
        [(KERNEL, self.kernel), (INITRAMFS, self.initramfs)]
            .map(|(name, bytes)| (name.to_owned(), sha256(bytes)))
            .into()
    }
}

/// The sha256 of some bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Writes the image to `directory`, replacing what is there. A VM that runs keeps running: QEMU has read its files at its start.
///
/// # Errors
/// When something cannot be written; what was there before is untouched then.
pub(crate) fn write(directory: &Path, contents: &Contents<'_>, image: &QemuImage) -> Result<(), OutputError> {
    let place = std::path::absolute(directory).map_err(failed(directory))?;
    let parent = place.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(failed(parent))?;
    let scratch = tempfile::Builder::new().prefix(".image").tempdir_in(parent).map_err(failed(parent))?;
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).map_err(failed(scratch.path()))?;
    let mut description =
        serde_json::to_vec_pretty(image).map_err(io::Error::other).map_err(failed(&place))?;
    description.push(b'\n');
    let files = [(KERNEL, contents.kernel), (INITRAMFS, contents.initramfs), (DESCRIPTION, &description)];
    for (name, bytes) in files {
        write_file(&scratch.path().join(name), bytes)?;
    }
    exchange(scratch.path(), &place).map_err(failed(&place))
    // What the scratch directory holds now (the old image, if there was one) goes with it.
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), OutputError> {
    let mut file = File::create(path).map_err(failed(path))?;
    file.write_all(bytes).map_err(failed(path))?;
    file.sync_all().map_err(failed(path))
}

/// Puts `new` at `place`; what was there is at `new` afterwards.
fn exchange(new: &Path, place: &Path) -> io::Result<()> {
    if place.is_dir() {
        renameat2(AT_FDCWD, new, AT_FDCWD, place, RenameFlags::RENAME_EXCHANGE)?;
    } else {
        fs::rename(new, place)?;
    }
    Ok(())
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> OutputError {
    let path = path.to_owned();
    move |source| OutputError { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(contents: &Contents<'_>) -> QemuImage {
        QemuImage {
            format: QemuImage::FORMAT,
            kernel_release: "6".to_owned(),
            kernel_arguments: vec!["quiet".to_owned()],
            agent: "miniagent".to_owned(),
            userland: None,
            inputs: BTreeMap::new(),
            outputs: contents.hashes(),
        }
    }

    #[test]
    fn an_image_replaces_another_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("deep/image");
        for kernel in [b"one".as_slice(), b"two"] {
            let contents = Contents { kernel, initramfs: b"070701" };
            write(&place, &contents, &image(&contents)).unwrap();
            assert_eq!(fs::read(place.join(KERNEL)).unwrap(), kernel);
        }
        let beside: Vec<_> = fs::read_dir(dir.path().join("deep")).unwrap().collect();
        assert_eq!(beside.len(), 1, "{beside:?}");
        let mode = fs::metadata(&place).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o755);
    }

    #[test]
    fn a_place_that_cannot_be_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let contents = Contents { kernel: b"k", initramfs: b"i" };
        let error = write(&dir.path().join("file/image"), &contents, &image(&contents)).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
    }
}
