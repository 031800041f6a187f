//! Device nodes in the container's `/dev`: the usual ones, and those the plan names.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Uid, chown};

use crate::control::Failure;
use crate::plan::{DeviceKind, DevicePlan};

/// The devices every container has, with major and minor number.
const USUAL: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The links every container has.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

/// Makes all devices that are not there yet.
pub(super) fn make(asked: &[DevicePlan]) -> Result<(), Failure> {
    if Path::new("/dev").is_dir() {
        for (path, major, minor) in USUAL {
            let kind = DeviceKind::Character;
            let usual = DevicePlan { path: path.into(), kind, major, minor, mode: 0o666, uid: 0, gid: 0 };
            make_one(&usual)?;
        }
        for (target, link) in LINKS {
            make_link(target, link)?;
        }
    }
    asked.iter().try_for_each(make_one)
}

fn make_link(target: &str, link: &str) -> Result<(), Failure> {
    match symlink(target, link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Failure::setup(format!("make the link {link}"), error))
        }
        _ => Ok(()),
    }
}

fn make_one(device: &DevicePlan) -> Result<(), Failure> {
    let path = &device.path;
    if path.exists() {
        return Ok(());
    }
    let fail = |error: io::Error| Failure::setup(format!("make the device {path:?}"), error);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(fail)?;
    }
    let kind = match device.kind {
        DeviceKind::Character => SFlag::S_IFCHR,
        DeviceKind::Block => SFlag::S_IFBLK,
        DeviceKind::Fifo => SFlag::S_IFIFO,
    };
    let mode = Mode::from_bits_truncate(device.mode);
    mknod(path, kind, mode, makedev(device.major, device.minor)).map_err(|e| fail(e.into()))?;
    // mknod takes the umask off; the asked bits are meant as they are.
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(device.mode);
    std::fs::set_permissions(path, permissions).map_err(fail)?;
    chown(path, Some(Uid::from_raw(device.uid)), Some(Gid::from_raw(device.gid))).map_err(|e| fail(e.into()))
}
