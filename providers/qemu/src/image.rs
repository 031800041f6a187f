//! The image VMs boot from: finding it and making sure that it is what its description says.

use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use peerpods_podvm::image::{DESCRIPTION, INITRAMFS, KERNEL, QemuImage};
use sha2::{Digest, Sha256};

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file of it cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The description is no description.
    #[error("{path} is no image description")]
    Description {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The description is of a form we do not know.
    #[error("{path} has format {format}; this program reads {}", QemuImage::FORMAT)]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// A file is not described, so it cannot be checked.
    #[error("{path} does not describe {file}")]
    Undescribed {
        /// The description.
        path: PathBuf,
        /// The file.
        file: &'static str,
    },
    /// A file is another than the one that was built.
    #[error("{path} is damaged: its sha256 is {found}, the description says {wanted}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// The image was asked for by a name that leads out of the directory of images, or there is no such directory.
    #[error("the image {name:?} cannot be chosen: {why}")]
    Name {
        /// What was asked for.
        name: String,
        /// Why it is refused.
        why: String,
    },
}

/// An image directory with a description we understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The directory, absolute.
    pub dir: PathBuf,
    /// Its description.
    pub description: QemuImage,
}

impl Image {
    /// Reads the description of the image in `dir`. Whether the files are whole is for [`Image::check`] to say.
    ///
    /// # Errors
    /// When there is none or it is of another form.
    pub fn load(dir: &Path) -> Result<Self, ImageError> {
        let dir = crate::config::absolute(dir);
        let path = dir.join(DESCRIPTION);
        let bytes = std::fs::read(&path).map_err(|source| ImageError::Read { path: path.clone(), source })?;
        let description: QemuImage = serde_json::from_slice(&bytes)
            .map_err(|source| ImageError::Description { path: path.clone(), source })?;
        if description.format != QemuImage::FORMAT {
            return Err(ImageError::Format { path, format: description.format });
        }
        Ok(Self { dir, description })
    }

    /// Makes sure that kernel and initramfs are the ones described. Reads both whole: tens of milliseconds.
    ///
    /// # Errors
    /// Names the file that is missing or another.
    pub fn check(&self) -> Result<(), ImageError> {
        for file in [KERNEL, INITRAMFS] {
            let wanted = self.described(file)?;
            let path = self.dir.join(file);
            let found = sha256(&path).map_err(|source| ImageError::Read { path: path.clone(), source })?;
            if found != wanted {
                return Err(ImageError::Damaged { path, found, wanted: wanted.to_owned() });
            }
        }
        Ok(())
    }

    fn described(&self, file: &'static str) -> Result<&str, ImageError> {
        let found = self.description.outputs.get(file).map(String::as_str);
        found.ok_or_else(|| ImageError::Undescribed { path: self.dir.join(DESCRIPTION), file })
    }

    /// The kernel.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.dir.join(KERNEL)
    }

    /// The initramfs.
    #[must_use]
    pub fn initramfs(&self) -> PathBuf {
        self.dir.join(INITRAMFS)
    }

    /// The kernel's sha256, as described.
    pub(crate) fn kernel_sha(&self) -> &str {
        self.description.outputs.get(KERNEL).map_or("", String::as_str)
    }
}

/// The directory of the image a pod asked for by name, below `images`.
pub(crate) fn named(images: Option<&Path>, name: &str) -> Result<PathBuf, ImageError> {
    let refuse = |why: &str| ImageError::Name { name: name.to_owned(), why: why.to_owned() };
    let images = images.ok_or_else(|| refuse("no directory of images is configured (qemu.images_dir)"))?;
    let plain = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
    if name.is_empty() || !plain {
        return Err(refuse("want the name of a directory below qemu.images_dir"));
    }
    let resolve = |path: &Path| {
        path.canonicalize().map_err(|source| ImageError::Read { path: path.to_owned(), source })
    };
    let (root, dir) = (resolve(images)?, resolve(&images.join(name))?);
    if dir.starts_with(&root) { Ok(dir) } else { Err(refuse("it leads out of qemu.images_dir")) }
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn image(dir: &Path) -> Image {
        let outputs = [KERNEL, INITRAMFS].map(|f| (f.to_owned(), hex::encode(Sha256::digest(f))));
        let description = QemuImage {
            format: QemuImage::FORMAT,
            kernel_release: "6.1".to_owned(),
            kernel_arguments: vec!["quiet".to_owned()],
            agent: "miniagent".to_owned(),
            userland: None,
            inputs: Default::default(),
            outputs: outputs.into(),
        };
        for file in [KERNEL, INITRAMFS] {
            fs::write(dir.join(file), file).unwrap();
        }
        fs::write(dir.join(DESCRIPTION), serde_json::to_vec(&description).unwrap()).unwrap();
        Image { dir: dir.to_owned(), description }
    }

    #[test]
    fn a_whole_image_is_loaded_and_a_damaged_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let image = image(dir.path());
        let loaded = Image::load(dir.path()).unwrap();
        assert_eq!(loaded, image);
        loaded.check().unwrap();
        fs::write(dir.path().join(INITRAMFS), "other").unwrap();
        assert!(matches!(loaded.check(), Err(ImageError::Damaged { path, .. }) if path.ends_with(INITRAMFS)));
        fs::remove_file(dir.path().join(KERNEL)).unwrap();
        assert!(matches!(loaded.check(), Err(ImageError::Read { path, .. }) if path.ends_with(KERNEL)));
    }

    #[test]
    fn a_description_of_another_form_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut image = image(dir.path());
        image.description.format = 9;
        fs::write(dir.path().join(DESCRIPTION), serde_json::to_vec(&image.description).unwrap()).unwrap();
        assert!(matches!(Image::load(dir.path()), Err(ImageError::Format { format: 9, .. })));
        fs::write(dir.path().join(DESCRIPTION), "{}").unwrap();
        assert!(matches!(Image::load(dir.path()), Err(ImageError::Description { .. })));
    }

    #[test]
    fn a_name_leads_to_a_directory_of_images_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path().join("images");
        fs::create_dir_all(images.join("team/large")).unwrap();
        fs::create_dir(dir.path().join("secret")).unwrap();
        symlink(dir.path().join("secret"), images.join("escape")).unwrap();
        assert!(named(Some(&images), "team/large").unwrap().ends_with("images/team/large"));
        for bad in ["", ".", "..", "../secret", "/etc", "team/../../secret", "escape", "missing"] {
            assert!(named(Some(&images), bad).is_err(), "{bad:?}");
        }
        assert!(named(None, "team").is_err());
    }
}
