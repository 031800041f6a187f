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

impl QemuImage {
    /// The version this program writes and reads.
    pub const FORMAT: u32 = 1;
}
