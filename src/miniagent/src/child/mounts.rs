//! The mounts of a container. `pick_up` works in the VM's root directory, everything else in the container's.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use rustix::fs::{AtFlags, CWD, FileType, statat};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::control::Failure;
use crate::plan::{MountPlan, MountSource};

/// Takes hold of every bind mount's source, in the order of the plans; other mounts need none.
pub(super) fn pick_up(plans: &[MountPlan]) -> Result<Vec<Option<OwnedFd>>, Failure> {
    plans.iter().map(|plan| pick_up_one(&plan.what)).collect()
}

fn pick_up_one(what: &MountSource) -> Result<Option<OwnedFd>, Failure> {
    let MountSource::Bind { path, recursive } = what else { return Ok(None) };
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, *recursive);
    open_tree(CWD, path, flags)
        .map(Some)
        .map_err(|error| Failure::setup(format!("bind {path:?} of the VM"), error))
}

/// Mounts, making the target where it is missing.
pub(super) fn attach(plan: &MountPlan, picked: Option<OwnedFd>) -> Result<(), Failure> {
    let target = &plan.target;
    let fail = |error: io::Error| Failure::setup(format!("mount {:?} at {target:?}", plan.what), error);
    let flags = MsFlags::from_bits_truncate(plan.flags);
    match (&plan.what, picked) {
        (MountSource::Bind { .. }, Some(source)) => attach_bind(&source, target, flags).map_err(fail)?,
        (MountSource::Bind { .. }, None) => {
            return Err(fail(io::Error::other("its source was not picked up")));
        }
        (MountSource::Filesystem { fstype, source }, _) => {
            fs::create_dir_all(target).map_err(fail)?;
            let (source, fstype) = (Some(source.as_str()), Some(fstype.as_str()));
            mount(source, target, fstype, flags, Some(plan.data.as_str())).map_err(|e| fail(e.into()))?;
        }
    }
    if plan.propagation == 0 {
        return Ok(());
    }
    let propagation = MsFlags::from_bits_truncate(plan.propagation);
    mount(None::<&str>, target, None::<&str>, propagation, None::<&str>).map_err(|e| fail(e.into()))
}

fn attach_bind(source: &OwnedFd, target: &Path, flags: MsFlags) -> io::Result<()> {
    let kind = FileType::from_raw_mode(statat(source, "", AtFlags::EMPTY_PATH)?.st_mode);
    if kind == FileType::Directory {
        fs::create_dir_all(target)?
    } else {
        make_file(target)?
    }
    // Links were followed for making the target, and are here: all of them within the container.
    let how = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(source.as_fd(), "", CWD, target, how)?;
    if flags.is_empty() { Ok(()) } else { Ok(remount_bind(target, flags)?) }
}

fn make_file(target: &Path) -> io::Result<()> {
    if target.exists() {
        return Ok(());
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o644).open(target).map(drop)
}

fn remount_bind(target: &Path, flags: MsFlags) -> nix::Result<()> {
    mount(None::<&str>, target, None::<&str>, flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT, None::<&str>)
}

/// Makes a path read-only, where it exists.
pub(super) fn make_readonly(path: &Path) -> Result<(), Failure> {
    if !path.exists() {
        return Ok(());
    }
    let both = MsFlags::MS_BIND | MsFlags::MS_REC;
    let strict = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(path), path, None::<&str>, both, None::<&str>)
        .and_then(|()| remount_bind(path, strict))
        .map_err(|error| Failure::setup(format!("make {path:?} read-only"), error))
}

/// Hides a path, where it exists: a file behind /dev/null, a directory behind an empty one.
pub(super) fn mask(path: &Path) -> Result<(), Failure> {
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    let done = if found.is_dir() {
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_RDONLY, Some("size=0k"))
    } else {
        mount(Some("/dev/null"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
    };
    done.map_err(|error| Failure::setup(format!("hide {path:?}"), error))
}

/// Makes `/` read-only, and nothing that is mounted below.
pub(super) fn remount_root_readonly() -> Result<(), Failure> {
    remount_bind(Path::new("/"), MsFlags::MS_RDONLY)
        .map_err(|error| Failure::setup("make the root directory read-only", error))
}
