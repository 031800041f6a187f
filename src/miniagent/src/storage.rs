//! Storages: what a request wants mounted in the VM before a container or the sandbox uses it.
//!
//! Four drivers: `overlayfs` (layers that are in the VM), `ephemeral` (a tmpfs), `local` (a directory), and `image_guest_pull` for the
//! images that are in the VM ([`crate::image`]). Devices are not for us.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{Gid, chown};
use peerpods_proto::ttrpc::agent;

use crate::image::{self, Userland};
use crate::mount_options::{self, MountOptions};

/// The directory of everything the agent makes; a new sandbox begins with an empty one.
pub const BASE: &str = "/run/kata-containers";

/// The drivers, as GetGuestDetails tells them.
pub const DRIVERS: [&str; 4] = ["ephemeral", image::DRIVER, "local", "overlayfs"];

/// An overlay option that asks for a writable layer of the agent's own.
const OVERLAY_RW: &str = "io.katacontainers.fs-opt.overlay-rw";

/// The prefix of options that are meant for the agent and not for the file system.
const AGENT_OPTION: &str = "io.katacontainers.";

/// Why a storage could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A driver we do not have.
    #[error(
        "storage driver {driver:?} is not supported (only ephemeral, image_guest_pull, local and overlayfs are)"
    )]
    Driver {
        /// The driver asked for.
        driver: String,
    },
    /// An image that is not in the VM.
    #[error(
        "image {image:?} is not in the VM, and this agent pulls none (it has \"pause\" and {})",
        image::USERLAND
    )]
    Image {
        /// The image asked for.
        image: String,
    },
    /// A mount point that is no plain absolute path.
    #[error("mount point {path:?} is not absolute, or has \"..\" in it")]
    MountPoint {
        /// The path asked for.
        path: String,
    },
    /// An option that is not as it should be.
    #[error("storage option {option:?} is malformed")]
    Option {
        /// The option.
        option: String,
    },
    /// A writable overlay for no container.
    #[error("a writable overlay needs a container")]
    NoContainer,
    /// A directory could not be made.
    #[error("cannot make the directory {path:?}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The mount failed.
    #[error("cannot mount {fstype} at {path:?} with {data:?}")]
    Mount {
        /// The file system.
        fstype: String,
        /// The mount point.
        path: PathBuf,
        /// The options passed to the file system.
        data: String,
        /// The kernel's answer.
        source: nix::Error,
    },
}

impl StorageError {
    /// Whether the request is at fault, rather than the VM.
    #[must_use]
    pub fn is_request_fault(&self) -> bool {
        !matches!(self, Self::Directory { .. } | Self::Mount { .. })
    }
}

/// What was made for a storage, to be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// A mount.
    Mounted(PathBuf),
    /// A directory, which stays until the sandbox ends.
    Directory(PathBuf),
}

impl Made {
    /// Whether it is at this mount point.
    #[must_use]
    pub fn is_at(&self, mount_point: &Path) -> bool {
        let (Self::Mounted(path) | Self::Directory(path)) = self;
        path == mount_point
    }

    /// Undoes it. One that is gone is fine.
    pub fn undo(&self) {
        let Self::Mounted(path) = self else { return };
        if let Err(error) = umount2(path, MntFlags::MNT_DETACH) {
            tracing::debug!(?path, %error, "not unmounted");
        }
    }
}

/// Whether it is a container's root directory, as opposed to a volume, which the pod's containers may share.
#[must_use]
pub fn is_root(storage: &agent::Storage) -> bool {
    matches!(storage.driver.as_str(), "overlayfs" | image::DRIVER)
}

/// Sets a storage up, for a container or (without one) for the sandbox.
///
/// # Errors
/// [`StorageError`]; nothing is left mounted then.
pub fn set_up(
    storage: &agent::Storage,
    container: Option<&str>,
    userland: &Userland,
) -> Result<Made, StorageError> {
    let target = mount_point(&storage.mount_point)?;
    match storage.driver.as_str() {
        "ephemeral" => ephemeral(storage, &target),
        image::DRIVER => image(storage, &target, container, userland),
        "local" => local(storage, &target),
        "overlayfs" => overlay(storage, &target, container),
        other => Err(StorageError::Driver { driver: other.to_owned() }),
    }
}

fn mount_point(path: &str) -> Result<PathBuf, StorageError> {
    let plain = Path::new(path).components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if plain && Path::new(path).is_absolute() {
        return Ok(PathBuf::from(path));
    }
    Err(StorageError::MountPoint { path: path.to_owned() })
}

fn ephemeral(storage: &agent::Storage, target: &Path) -> Result<Made, StorageError> {
    make_directory(target)?;
    let options = mount_options::sort(&file_system_options(storage));
    mount_at(target, "tmpfs", &storage.source, &options)?;
    give_to_group(storage, target)?;
    Ok(Made::Mounted(target.to_owned()))
}

fn local(storage: &agent::Storage, target: &Path) -> Result<Made, StorageError> {
    make_directory(target)?;
    for option in &storage.options {
        let Some(mode) = option.strip_prefix("mode=") else { continue };
        let mode =
            u32::from_str_radix(mode, 8).map_err(|_| StorageError::Option { option: option.clone() })?;
        set_mode(target, mode)?;
    }
    give_to_group(storage, target)?;
    Ok(Made::Directory(target.to_owned()))
}

fn overlay(storage: &agent::Storage, target: &Path, container: Option<&str>) -> Result<Made, StorageError> {
    make_directory(target)?;
    let mut options = mount_options::sort(&file_system_options(storage));
    if storage.options.iter().any(|option| option == OVERLAY_RW) {
        let own = Path::new(BASE).join(container.ok_or(StorageError::NoContainer)?);
        let (upper, work) = (own.join("upper"), own.join("work"));
        make_directory(&upper)?;
        make_directory(&work)?;
        let added = format!("upperdir={},workdir={}", upper.display(), work.display());
        options.data = [options.data.as_str(), &added]
            .into_iter()
            .filter(|s| !s.is_empty())
            .collect::<Vec<_>>()
            .join(",");
    }
    mount_at(target, "overlay", "overlay", &options)?;
    Ok(Made::Mounted(target.to_owned()))
}

/// A writable layer on the userland, which all our images are.
fn image(
    storage: &agent::Storage,
    target: &Path,
    container: Option<&str>,
    userland: &Userland,
) -> Result<Made, StorageError> {
    if !image::is_here(&storage.source) {
        return Err(StorageError::Image { image: storage.source.clone() });
    }
    let lower = format!("lowerdir={}", userland.0.display());
    let options = vec![OVERLAY_RW.to_owned(), lower];
    overlay(&agent::Storage { options, ..Default::default() }, target, container)
}

fn file_system_options(storage: &agent::Storage) -> Vec<String> {
    storage.options.iter().filter(|option| !option.starts_with(AGENT_OPTION)).cloned().collect()
}

fn mount_at(target: &Path, fstype: &str, source: &str, options: &MountOptions) -> Result<(), StorageError> {
    let flags = MsFlags::from_bits_truncate(options.flags);
    mount(Some(source), target, Some(fstype), flags, Some(options.data.as_str())).map_err(|source| {
        let (fstype, path) = (fstype.to_owned(), target.to_owned());
        StorageError::Mount { fstype, path, data: options.data.clone(), source }
    })
}

/// The volume is new, so its root directory is all there is to give.
fn give_to_group(storage: &agent::Storage, target: &Path) -> Result<(), StorageError> {
    let Some(group) = storage.fs_group.as_ref() else { return Ok(()) };
    let fail = |source| StorageError::Directory { path: target.to_owned(), source };
    chown(target, None, Some(Gid::from_raw(group.group_id))).map_err(|e| fail(e.into()))?;
    let mode = fs::metadata(target).map_err(fail)?.permissions().mode();
    set_mode(target, (mode & 0o7777) | 0o2070)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), StorageError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|source| StorageError::Directory { path: path.to_owned(), source })
}

fn make_directory(path: &Path) -> Result<(), StorageError> {
    fs::create_dir_all(path).map_err(|source| StorageError::Directory { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_driver_is_named() {
        let storage = agent::Storage { driver: "blk".into(), mount_point: "/m".into(), ..Default::default() };
        let error = set_up(&storage, None, &Userland::default()).unwrap_err();
        assert!(error.to_string().contains("\"blk\""), "{error}");
        assert!(error.is_request_fault());
    }

    #[test]
    fn an_image_that_is_not_in_the_vm_is_named() {
        let (driver, source) = (image::DRIVER.into(), "docker.io/library/nginx:1".into());
        let storage = agent::Storage { driver, source, mount_point: "/m".into(), ..Default::default() };
        let error = set_up(&storage, Some("c"), &Userland::default()).unwrap_err();
        assert!(error.to_string().contains("nginx:1"), "{error}");
        assert!(error.is_request_fault());
    }

    #[test]
    fn a_mount_point_with_dots_is_refused() {
        for bad in ["", "relative", "/a/../b", "../x"] {
            assert!(mount_point(bad).is_err(), "{bad:?}");
        }
        assert_eq!(mount_point("/run/x").unwrap(), Path::new("/run/x"));
    }

    #[test]
    fn options_for_the_agent_do_not_reach_the_file_system() {
        let options = vec![OVERLAY_RW.to_owned(), "lowerdir=/l".to_owned()];
        let storage = agent::Storage { options, ..Default::default() };
        assert_eq!(file_system_options(&storage), ["lowerdir=/l"]);
    }
}
