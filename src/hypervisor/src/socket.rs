//! The shim's socket: taken when it is free or stale, refused when a service answers on it, never readable by anyone else.
//!
//! The file stays when the service ends, on purpose: runtime-rs resolves the path when it reads its configuration and when it cleans
//! up after a shim, and fails when nothing is there.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use tokio::net::UnixListener;

/// Why the socket could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A service answers there.
    #[error(
        "another service is listening on {}; stop it (systemctl stop peerpods, or delete its pod), or choose another socket (REMOTE_HYPERVISOR_ENDPOINT)",
        path.display()
    )]
    Live {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket lies there.
    #[error("{} exists and is no socket; move it away or choose another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The path is too long for a unix socket.
    #[error("{} has {len} bytes; a unix socket's path has at most 107", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        len: usize,
    },
    /// A file operation failed.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The longest path that fits `sockaddr_un`.
pub const MAX_PATH: usize = 107;

/// A listening socket and the lock that says it is ours.
#[derive(Debug)]
pub struct OwnedSocket {
    /// Accepts connections.
    pub listener: UnixListener,
    _lock: Flock<File>,
}

/// Takes the socket at `path`: mode 0600, its directory made 0700 when missing, a stale file replaced in one step.
///
/// # Errors
/// [`SocketError::Live`] when a service answers there.
pub fn take(path: &Path) -> Result<OwnedSocket, SocketError> {
    let fail = |step, source| SocketError::Io { step, path: path.to_owned(), source };
    let len = path.as_os_str().len();
    // The socket is bound under a longer temporary name first.
    if len + TEMP_SUFFIX.len() > MAX_PATH {
        return Err(SocketError::TooLong { path: path.to_owned(), len });
    }
    if let Some(dir) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| fail("make the directory of", e))?;
    }
    let lock = lock(path)?;
    refuse_live(path)?;
    let temp = PathBuf::from(format!("{}{TEMP_SUFFIX}", path.display()));
    remove_if_there(&temp).map_err(|e| fail("remove the stale file beside", e))?;
    let listener = UnixListener::bind(&temp).map_err(|e| fail("listen beside", e))?;
    fs::set_permissions(&temp, Permissions::from_mode(0o600)).map_err(|e| fail("set the mode of", e))?;
    fs::rename(&temp, path).map_err(|e| fail("put the socket at", e))?;
    Ok(OwnedSocket { listener, _lock: lock })
}

const TEMP_SUFFIX: &str = ".new";

/// Two services that start at the same moment must not both find the socket stale.
fn lock(path: &Path) -> Result<Flock<File>, SocketError> {
    let name = PathBuf::from(format!("{}.lock", path.display()));
    match exclusive(&name) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(SocketError::Live { path: path.to_owned() }),
        Err(source) => Err(SocketError::Io { step: "lock", path: name, source }),
    }
}

/// The lock on the file `name` (made when missing), held until dropped or the process ends; `None` when another process holds it.
///
/// # Errors
/// When the file cannot be made or locked at all.
pub(crate) fn exclusive(name: &Path) -> io::Result<Option<Flock<File>>> {
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(name)?;
    let patience = Instant::now() + INHERITED;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((file, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < patience => file,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno.into()),
        };
        std::thread::sleep(INHERITED / 50);
    }
}

/// How long a lock may outlive its process: one that is killed while it starts a program leaves a child that has all its descriptors until
/// it becomes that program.
const INHERITED: Duration = Duration::from_millis(500);

/// A service without our lock (upstream's, say) is told by its answer.
fn refuse_live(path: &Path) -> Result<(), SocketError> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    let patience = Instant::now() + INHERITED;
    while StdUnixStream::connect(path).is_ok() {
        if Instant::now() >= patience {
            return Err(SocketError::Live { path: path.to_owned() });
        }
        std::thread::sleep(INHERITED / 50);
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/hypervisor.sock");
        drop(take(&path).unwrap());
        assert!(path.exists(), "the file stays for runtime-rs");
        let again = take(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        StdUnixStream::connect(&path).unwrap();
        drop(again);
    }

    #[tokio::test]
    async fn a_live_socket_is_refused_whoever_owns_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.sock");
        let ours = take(&path).unwrap();
        assert!(matches!(take(&path), Err(SocketError::Live { .. })));
        drop(ours);
        fs::remove_file(&path).unwrap();
        let _foreign = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let refused = take(&path).unwrap_err();
        assert!(refused.to_string().contains("another service is listening"), "{refused}");
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(take(&path), Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn what_a_killed_service_left_to_a_child_for_a_moment_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h.sock");
        let inherited = take(&path).unwrap();
        let child = std::thread::spawn(move || {
            std::thread::sleep(INHERITED / 5);
            drop(inherited);
        });
        take(&path).unwrap();
        child.join().unwrap();
    }
}
