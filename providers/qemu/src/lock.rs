//! Locks that hold between tasks and between processes: byte ranges of one file, released by the kernel when their holder dies.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::failure::Failure;
use crate::places::Names;

/// How often a lock that is held is tried again.
const RETRY: Duration = Duration::from_millis(5);

/// What is locked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scope<'a> {
    /// Addresses and the bridge: short.
    Host,
    /// One VM's birth and death.
    Vm(&'a Names),
}

impl Scope<'_> {
    fn byte(self) -> libc::off_t {
        match self {
            Scope::Host => 0,
            // Two VMs that share a byte only wait for one another.
            Scope::Vm(names) => 1 + libc::off_t::try_from(names.seed >> 2).unwrap_or(0),
        }
    }
}

/// A lock that is held until it is dropped.
pub(crate) struct Held {
    file: File,
    byte: libc::off_t,
}

/// Takes a lock. Dropping the future gives up waiting.
pub(crate) async fn take(path: &Path, scope: Scope<'_>) -> Result<Held, Failure> {
    // A description of its own for each lock: such locks exclude one another also within a process.
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = open.map_err(Failure::file("open the lock", path))?;
    let byte = scope.byte();
    loop {
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&range(libc::F_WRLCK, byte))) {
            Ok(_) => return Ok(Held { file, byte }),
            Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) => tokio::time::sleep(RETRY).await,
            Err(errno) => return Err(Failure::file("lock", path)(errno.into())),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing would do too, unless a child being started holds a copy of the descriptor for a moment.
        let _ = fcntl(&self.file, FcntlArg::F_OFD_SETLK(&range(libc::F_UNLCK, self.byte)));
    }
}

fn range(kind: libc::c_int, byte: libc::off_t) -> libc::flock {
    let kind = libc::c_short::try_from(kind).unwrap_or_default();
    let whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default();
    // The kernel wants l_pid to be 0 for this sort of lock.
    libc::flock { l_type: kind, l_whence: whence, l_start: byte, l_len: 1, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::config::QemuConfig;
    use crate::places::Places;

    #[tokio::test]
    async fn a_lock_excludes_its_own_scope_only_and_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let key = peerpods_provider::VmKey { cluster: "c".parse().unwrap(), sandbox: "s".parse().unwrap() };
        let names = Names::of(&Places::of(&QemuConfig::default()), &key);
        let host = take(&path, Scope::Host).await.unwrap();
        let _vm = take(&path, Scope::Vm(&names)).await.unwrap();
        let wait = Duration::from_millis(50);
        assert!(timeout(wait, take(&path, Scope::Host)).await.is_err());
        drop(host);
        assert!(timeout(wait, take(&path, Scope::Host)).await.unwrap().is_ok());
        assert!(timeout(wait, take(&path, Scope::Vm(&names))).await.is_err());
    }
}
