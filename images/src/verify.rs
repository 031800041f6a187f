//! Is a directory a whole image? Everything the description says is compared with what lies there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use elf::ElfBytes;
use elf::endian::LittleEndian;
use peerpods_podvm::image::{DESCRIPTION, INITRAMFS, KERNEL, QemuImage};

use crate::output::sha256;

const CPIO_MAGIC: &[u8] = b"070701";

/// Why a directory is no image.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The description cannot be read.
    #[error("{} is no image: its {DESCRIPTION} cannot be read (make one with `peerpods image build`)", directory.display())]
    Read {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The description is of another form.
    #[error("{} is no image: its {DESCRIPTION} is broken", directory.display())]
    Parse {
        /// The directory.
        directory: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The description is of another version.
    #[error("{} is an image of format {got}, and this program knows {}; build it again", directory.display(), QemuImage::FORMAT)]
    Format {
        /// The directory.
        directory: PathBuf,
        /// What it says.
        got: u32,
    },
    /// Files are missing, changed or not what they are called.
    #[error("the image {} is damaged: {}; build it again", directory.display(), faults.join("; "))]
    Damaged {
        /// The directory.
        directory: PathBuf,
        /// Everything that is wrong.
        faults: Vec<String>,
    },
}

/// Reads an image's description and compares the files with it, every byte.
///
/// # Errors
/// When the directory is no whole image; all damages are reported at once.
pub fn verify(directory: &Path) -> Result<QemuImage, VerifyError> {
    let at = || directory.to_owned();
    let text = fs::read(directory.join(DESCRIPTION))
        .map_err(|source| VerifyError::Read { directory: at(), source })?;
    let image: QemuImage =
        serde_json::from_slice(&text).map_err(|source| VerifyError::Parse { directory: at(), source })?;
    if image.format != QemuImage::FORMAT {
        return Err(VerifyError::Format { directory: at(), got: image.format });
    }
    let faults: Vec<String> = [KERNEL, INITRAMFS]
        .into_iter()
        .filter_map(|name| fault(name, fs::read(directory.join(name)), image.outputs.get(name)))
        .collect();
    if faults.is_empty() { Ok(image) } else { Err(VerifyError::Damaged { directory: at(), faults }) }
}

/// What is wrong with one file. Pure.
fn fault(name: &str, content: io::Result<Vec<u8>>, expected: Option<&String>) -> Option<String> {
    let bytes = match content {
        Ok(bytes) => bytes,
        Err(error) => return Some(format!("{name} cannot be read ({error})")),
    };
    let Some(expected) = expected else {
        return Some(format!("{DESCRIPTION} does not say what {name} should be"));
    };
    let got = sha256(&bytes);
    if got != *expected {
        return Some(format!("{name} has the sha256 {got} and should have {expected}"));
    }
    let right = match name {
        KERNEL => ElfBytes::<LittleEndian>::minimal_parse(&bytes).is_ok(),
        _ => bytes.starts_with(CPIO_MAGIC),
    };
    (!right).then(|| format!("{name} is of the wrong kind"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Contents, write};

    fn made(directory: &Path) -> QemuImage {
        let kernel = fs::read("/bin/sh").unwrap();
        let contents = Contents { kernel: &kernel, initramfs: b"070701" };
        let image = QemuImage {
            format: QemuImage::FORMAT,
            kernel_release: "6".to_owned(),
            kernel_arguments: Vec::new(),
            agent: "miniagent".to_owned(),
            userland: None,
            inputs: std::collections::BTreeMap::new(),
            outputs: contents.hashes(),
        };
        write(directory, &contents, &image).unwrap();
        image
    }

    #[test]
    fn a_whole_image_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let image = made(&dir.path().join("image"));
        assert_eq!(verify(&dir.path().join("image")).unwrap(), image);
    }

    #[test]
    fn all_damages_are_reported_at_once() {
        let dir = tempfile::tempdir().unwrap();
        made(dir.path());
        fs::write(dir.path().join(KERNEL), "x").unwrap();
        fs::remove_file(dir.path().join(INITRAMFS)).unwrap();
        let error = verify(dir.path()).unwrap_err();
        assert!(matches!(&error, VerifyError::Damaged { faults, .. } if faults.len() == 2), "{error}");
    }

    #[test]
    fn a_directory_without_a_description_says_how_to_make_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = verify(dir.path()).unwrap_err().to_string();
        assert!(error.contains("image build"), "{error}");
    }

    #[test]
    fn another_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut image = made(dir.path());
        image.format = 99;
        fs::write(dir.path().join(DESCRIPTION), serde_json::to_vec(&image).unwrap()).unwrap();
        assert!(matches!(verify(dir.path()), Err(VerifyError::Format { got: 99, .. })));
    }
}
