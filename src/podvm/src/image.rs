//! The description that lies beside a pod VM image for QEMU: `image.json` in a directory with the kernel and the initramfs.
//! Written by `peerpods image build --target qemu`, read by the QEMU provider and by `sandbox run`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The description's file name.
pub const DESCRIPTION: &str = "image.json";
/// The uncompressed kernel's file name.
pub const KERNEL: &str = "vmlinux";
/// The initramfs' file name.
pub const INITRAMFS: &str = "initramfs.cpio";

/// A directory holding a bootable pod VM image, described.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QemuImage {
    /// Version of this description; [`QemuImage::FORMAT`].
    pub format: u32,
    /// The guest kernel's release, such as `6.1.0-56-cloud-amd64`.
    pub kernel_release: String,
    /// Kernel arguments every boot needs.
    pub kernel_arguments: Vec<String>,
    /// The agent in the image: `kata-agent` or `miniagent`.
    pub agent: String,
    /// Where the image carries a small root file system for containers, for `sandbox run`; a path inside the guest.
    pub userland: Option<String>,
    /// What went in: name → sha256 in hexadecimal.
    pub inputs: BTreeMap<String, String>,
    /// What came out: file name → sha256 in hexadecimal.
    pub outputs: BTreeMap<String, String>,
}

/// Whether a guest daemon lets a worker admit it by a one-time token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestAdmission {
    /// Nothing says so: it may be a stock guest, or an old one of ours.
    #[default]
    Unknown,
    /// It does.
    Token,
}

/// `peerpods-guest` has this text in its program (`--version` shows it) as long as it can be admitted by a token, and so an image is
/// known to hold such a guest.
pub const GUEST_ADMITTED_BY_TOKEN: &str = "peerpods-guest can: admission/1";

impl QemuImage {
    /// Among the inputs: the guest that went in can be admitted by a token. Not a field of its own, because programs that do not know
    /// a field refuse the whole description.
    pub const ADMITTED_BY_TOKEN: &str = "peerpods-guest admission/1";

    /// What is known of the guest in the image.
    #[must_use]
    pub fn guest_admission(&self) -> GuestAdmission {
        match self.inputs.contains_key(Self::ADMITTED_BY_TOKEN) {
            true => GuestAdmission::Token,
            false => GuestAdmission::Unknown,
        }
    }

    /// The version this program writes and reads.
    pub const FORMAT: u32 = 1;
}
