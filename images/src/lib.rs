//! The builder of pod VM images: manifest → plan → build → verify.
//!
//! An image is a directory with an uncompressed kernel, an initramfs and a description ([`peerpods_podvm::image::QemuImage`]). It is
//! made from Debian packages that are pinned by hash (`pins.toml`), from data about what to put in (`manifest/qemu.toml`) and from our
//! own statically linked programs. The same inputs give the same bytes.
//!
//! This crate asks apt for packages and reads them; it installs nothing, runs nothing of what it downloads, needs no root and knows
//! no provider. How programs for the guest are compiled is not its business: it takes them by path and checks that they would run.

mod archive;
mod build;
mod deb;
mod kernel;
mod manifest;
mod modules;
mod output;
mod packages;
mod pins;
mod plan;
mod program;
mod tree;
mod verify;

pub use build::{BuildError, BuildOptions, Built, GUEST_BUILD_COMMAND, Step, build};
pub use deb::DebError;
pub use kernel::KernelError;
pub use manifest::ManifestError;
pub use modules::ModuleError;
pub use output::OutputError;
pub use packages::PackageError;
pub use pins::PinsError;
pub use program::ProgramError;
pub use tree::TreeError;
pub use verify::{VerifyError, verify};
