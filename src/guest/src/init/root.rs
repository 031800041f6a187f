//! Leaving the initramfs: a root of its own kind, on which `pivot_root` works.
//!
//! The kernel unpacks the initramfs into `rootfs`, which can be neither pivoted from nor unmounted, and agents that see it fall back to
//! a mere chroot for containers. So a tmpfs becomes the root. Nothing is copied but single files at the top: the directories of the
//! initramfs are bound into the new root, which costs neither time nor a second copy in memory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot};

use super::{InitError, failed};

/// Where the new root is put together.
const NEW_ROOT: &str = "/.root";
/// Directories that start empty: something is mounted over them, or they are scratch.
const FRESH: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];

/// What becomes of an entry of the old root.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It is the new root itself.
    Skip,
    /// An empty directory with these permissions.
    Fresh(u32),
    /// A directory that is bound.
    Bind,
    /// A symbolic link that is made again.
    Link,
    /// A file that is copied.
    Copy,
}

/// The kinds of entries there are.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Directory,
    Link,
    Other,
}

/// Pure.
fn fate(name: &str, kind: Kind) -> Fate {
    match kind {
        Kind::Directory if Some(name) == NEW_ROOT.strip_prefix('/') => Fate::Skip,
        Kind::Directory if name == "tmp" => Fate::Fresh(0o1777),
        Kind::Directory if FRESH.contains(&name) => Fate::Fresh(0o755),
        Kind::Directory => Fate::Bind,
        Kind::Link => Fate::Link,
        Kind::Other => Fate::Copy,
    }
}

/// Makes a tmpfs with everything of the initramfs the root of this and every later process.
pub(super) fn leave_initramfs() -> Result<(), InitError> {
    let new = Path::new(NEW_ROOT);
    fs::create_dir_all(new).map_err(failed("make the new root"))?;
    let none: Option<&str> = None;
    mount(Some("root"), new, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .map_err(failed("mount the new root"))?;
    for entry in fs::read_dir("/").map_err(failed("read the initramfs"))? {
        let entry = entry.map_err(failed("read the initramfs"))?;
        let file_type = entry.file_type().map_err(failed("read the initramfs"))?;
        let kind = match () {
            () if file_type.is_dir() => Kind::Directory,
            () if file_type.is_symlink() => Kind::Link,
            () => Kind::Other,
        };
        let name = entry.file_name();
        take_over(&entry.path(), &new.join(&name), fate(&name.to_string_lossy(), kind))?;
    }
    chdir(new).map_err(failed("enter the new root"))?;
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none).map_err(failed("move the new root to /"))?;
    chroot(".").map_err(failed("change the root"))?;
    chdir("/").map_err(failed("enter the new root"))
}

fn take_over(old: &Path, new: &Path, fate: Fate) -> Result<(), InitError> {
    let step = || format!("take {} over from the initramfs", old.display());
    match fate {
        Fate::Skip => Ok(()),
        Fate::Fresh(mode) => make_directory(new, mode).map_err(failed(step())),
        Fate::Bind => {
            fs::create_dir(new).map_err(failed(step()))?;
            let none: Option<&str> = None;
            mount(Some(old), new, none, MsFlags::MS_BIND, none).map_err(failed(step()))
        }
        Fate::Link => fs::read_link(old).and_then(|target| symlink(target, new)).map_err(failed(step())),
        Fate::Copy => fs::copy(old, new).map(drop).map_err(failed(step())),
    }
}

fn make_directory(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_bound_and_mount_points_start_empty() {
        assert_eq!(fate("usr", Kind::Directory), Fate::Bind);
        assert_eq!(fate("proc", Kind::Directory), Fate::Fresh(0o755));
        assert_eq!(fate("tmp", Kind::Directory), Fate::Fresh(0o1777));
        assert_eq!(fate("init", Kind::Link), Fate::Link);
        assert_eq!(fate("init", Kind::Other), Fate::Copy);
        assert_eq!(fate(".root", Kind::Directory), Fate::Skip);
    }
}
