//! The namespaces all containers of the sandbox share: host name and IPC. Held open by descriptor, so nothing is left on disk.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use nix::sched::{CloneFlags, unshare};

/// Why shared namespaces could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The kernel made none.
    #[error("cannot make UTS and IPC namespaces")]
    Unshare(#[source] nix::Error),
    /// The host name is not one.
    #[error("cannot set the host name {name:?}")]
    Hostname {
        /// The name asked for.
        name: String,
        /// The kernel's answer.
        source: nix::Error,
    },
    /// `/proc` is not as it should be.
    #[error("cannot open the new namespace")]
    Open(#[source] std::io::Error),
    /// The thread that makes them died.
    #[error("the thread that makes namespaces died")]
    Thread,
}

/// The shared namespaces; they live as long as this or a process in them.
#[derive(Debug)]
pub struct SharedNamespaces {
    uts: File,
    ipc: File,
}

impl SharedNamespaces {
    /// Makes both, and sets the host name where there is one.
    ///
    /// # Errors
    /// [`NamespaceError`].
    pub fn make(hostname: &str) -> Result<Self, NamespaceError> {
        let hostname = hostname.to_owned();
        // A thread of its own, which ends in the new namespaces: the agent itself stays where it is.
        let made = std::thread::spawn(move || Self::make_in_this_thread(&hostname));
        made.join().map_err(|_| NamespaceError::Thread)?
    }

    fn make_in_this_thread(hostname: &str) -> Result<Self, NamespaceError> {
        unshare(CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC).map_err(NamespaceError::Unshare)?;
        if !hostname.is_empty() {
            nix::unistd::sethostname(hostname)
                .map_err(|source| NamespaceError::Hostname { name: hostname.to_owned(), source })?;
        }
        let open = |kind| File::open(format!("/proc/thread-self/ns/{kind}")).map_err(NamespaceError::Open);
        Ok(Self { uts: open("uts")?, ipc: open("ipc")? })
    }

    /// Where a child of the agent finds the UTS namespace.
    #[must_use]
    pub fn uts(&self) -> PathBuf {
        path_for_children(&self.uts)
    }

    /// Where a child of the agent finds the IPC namespace.
    #[must_use]
    pub fn ipc(&self) -> PathBuf {
        path_for_children(&self.ipc)
    }
}

fn path_for_children(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()))
}
