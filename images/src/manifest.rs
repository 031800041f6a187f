//! What an image holds, as data: `manifest/qemu.toml`, compiled in.

use serde::Deserialize;

/// The text of the one manifest there is.
pub(crate) const QEMU: &str = include_str!("../manifest/qemu.toml");

/// The manifest is no TOML, or has keys nobody knows.
#[derive(Debug, thiserror::Error)]
#[error("the image manifest cannot be read")]
pub struct ManifestError(#[from] toml::de::Error);

/// What goes into an image besides packages and programs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Manifest {
    /// Names of the kernel modules to load at boot, in order.
    pub(crate) modules: Vec<String>,
    /// Kernel arguments of every boot.
    pub(crate) kernel_arguments: Vec<String>,
    /// Directories to make, relative to the root.
    pub(crate) directories: Vec<String>,
    /// Symbolic links to make, relative to the root.
    pub(crate) symlinks: Vec<Symlink>,
    /// Small text files, relative to the root.
    pub(crate) files: Vec<TextFile>,
    /// The root file system for containers without an image.
    pub(crate) userland: Userland,
}

/// A symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Symlink {
    /// Where it lies.
    pub(crate) path: String,
    /// What it points to.
    pub(crate) target: String,
}

/// A small text file. A line break right after the opening quotes is TOML's and not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TextFile {
    /// Where it lies.
    pub(crate) path: String,
    /// What is in it.
    pub(crate) text: String,
}

/// The userland; all paths inside are relative to its own `path`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Userland {
    /// Where it lies in the image, relative to the root.
    pub(crate) path: String,
    /// Directories to make.
    pub(crate) directories: Vec<String>,
    /// Names under which busybox is found in `bin`.
    pub(crate) applets: Vec<String>,
    /// Symbolic links to make.
    pub(crate) symlinks: Vec<Symlink>,
    /// Small text files.
    pub(crate) files: Vec<TextFile>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// When it is no manifest.
    pub(crate) fn parse(text: &str) -> Result<Self, ManifestError> {
        Ok(toml::from_str(text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_we_ship_is_one() {
        let manifest = Manifest::parse(QEMU).unwrap();
        assert!(manifest.modules.contains(&"vxlan".to_owned()));
        assert!(manifest.userland.applets.contains(&"sh".to_owned()));
    }

    #[test]
    fn an_image_for_every_accelerator_keeps_the_kernels_own_defences() {
        let arguments = Manifest::parse(QEMU).unwrap().kernel_arguments;
        assert!(!arguments.iter().any(|a| a.starts_with("mitigations") || a == "nokaslr"), "{arguments:?}");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let text = format!("moduls = []\n{QEMU}");
        assert!(Manifest::parse(&text).is_err());
    }
}
