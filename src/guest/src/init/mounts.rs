//! The file systems a Linux system has, and the control groups containers are put into.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::{InitError, failed};

struct Mount {
    target: &'static str,
    kind: &'static str,
    flags: MsFlags,
    data: &'static str,
}

const PLAIN: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC).union(MsFlags::MS_NODEV);
const DEVICES: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);
const SCRATCH: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// In this order: some lie inside others.
const MOUNTS: [Mount; 7] = [
    Mount { target: "/proc", kind: "proc", flags: PLAIN, data: "" },
    Mount { target: "/sys", kind: "sysfs", flags: PLAIN, data: "" },
    Mount { target: "/dev", kind: "devtmpfs", flags: DEVICES, data: "mode=0755" },
    Mount { target: "/dev/pts", kind: "devpts", flags: DEVICES, data: "gid=5,mode=0620,ptmxmode=0666" },
    Mount { target: "/dev/shm", kind: "tmpfs", flags: SCRATCH, data: "mode=1777" },
    // Containers' file systems are made here, so programs and devices have to work.
    Mount { target: "/run", kind: "tmpfs", flags: MsFlags::empty(), data: "mode=0755" },
    Mount { target: "/sys/fs/cgroup", kind: "cgroup2", flags: PLAIN, data: "" },
];

/// Names programs expect in /dev and the kernel does not make.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Mounts everything and hands every control group controller to the groups below the root.
pub(super) fn mount_all() -> Result<(), InitError> {
    for Mount { target, kind, flags, data } in &MOUNTS {
        let step = || format!("mount {target}");
        fs::create_dir_all(target).map_err(failed(step()))?;
        mount(Some(*kind), *target, Some(*kind), *flags, Some(*data)).map_err(failed(step()))?;
    }
    for (target, link) in LINKS {
        symlink(target, link).map_err(failed(format!("make {link}")))?;
    }
    delegate(Path::new("/sys/fs/cgroup")).map_err(failed("enable the control group controllers"))
}

/// Enables each controller the kernel has for child groups.
fn delegate(root: &Path) -> io::Result<()> {
    let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
    fs::write(root.join("cgroup.subtree_control"), enable(&controllers))
}

/// `cpu memory` → `+cpu +memory`. Pure.
fn enable(controllers: &str) -> String {
    controllers.split_ascii_whitespace().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_controller_is_enabled() {
        assert_eq!(enable("cpuset cpu io memory pids\n"), "+cpuset +cpu +io +memory +pids");
        assert_eq!(enable("\n"), "");
    }

    #[test]
    fn what_lies_inside_is_mounted_after_what_it_lies_in() {
        for (at, inner) in MOUNTS.iter().enumerate() {
            let later = &MOUNTS[at + 1..];
            let outer = later.iter().find(|m| inner.target.starts_with(&format!("{}/", m.target)));
            assert!(outer.is_none(), "{} would be hidden", inner.target);
        }
    }
}
