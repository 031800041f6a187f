//! The host's files, seen from a container. Every path is resolved inside the host's root, by the kernel: a symbolic link on the host, also an
//! absolute one, means what it means there, and none leads out. Decides nothing.

use std::ffi::CStr;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, ResolveFlags, Stat, XattrFlags, fchmod, fchown,
    fgetxattr, flock, fsetxattr, fstat, fsync, mkdirat, openat2, renameat, unlinkat,
};
use rustix::io::Errno;

/// No configuration file is as long.
const LONGEST: u64 = 4 << 20;
/// The one name under which a file is written before it has its own.
const UNFINISHED: &str = ".peerpods-install-node";
/// Where SELinux keeps a file's type.
const SELINUX: &CStr = c"security.selinux";

/// Why the host's files could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {path} of the host")]
pub struct HostError {
    doing: &'static str,
    path: String,
    /// What the kernel said.
    pub source: io::Error,
}

fn failed(doing: &'static str, path: &str) -> impl FnOnce(Errno) -> HostError {
    let path = path.to_owned();
    move |errno| HostError { doing, path, source: errno.into() }
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    /// Nothing.
    Absent,
    /// A file with this text.
    Text(String),
    /// A symbolic link to a file with this text: it belongs to whoever made the link.
    Linked(String),
    /// Something that is none of these, for people.
    Other(String),
}

impl File {
    /// Its text, if it has one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Linked(text) => Some(text),
            Self::Absent | Self::Other(_) => None,
        }
    }
}

/// A host's root directory.
#[derive(Debug)]
pub struct Host {
    root: OwnedFd,
}

/// Held while somebody works on a host.
#[derive(Debug)]
pub struct Lock {
    _directory: OwnedFd,
}

impl Host {
    /// The host whose root is this directory.
    ///
    /// # Errors
    /// When there is none.
    pub fn at(root: &Path) -> Result<Self, HostError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())
            .map_err(failed("open", &root.display().to_string()))?;
        Ok(Self { root })
    }

    fn open(&self, path: &str, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
        let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = path.trim_start_matches('/');
        let path = if path.is_empty() { "." } else { path };
        // The kernel asks for another try when directories are moved meanwhile.
        loop {
            match openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                answer => return answer,
            }
        }
    }

    /// The directory of a path, and the name in it.
    fn parent<'a>(&self, path: &'a str) -> Result<(OwnedFd, &'a str), Errno> {
        let (directory, name) = path.rsplit_once('/').ok_or(Errno::INVAL)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        Ok((self.open(directory, flags, ResolveFlags::empty())?, name))
    }

    /// Waits for nobody: none when somebody else works on this host. The lock ends with its holder, whatever ends that.
    ///
    /// # Errors
    /// When the host has no place for its state.
    pub fn lock(&self) -> Result<Option<Lock>, HostError> {
        // A directory that every host has: the lock leaves no trace.
        let (path, flags) = ("/var/lib", OFlags::RDONLY | OFlags::DIRECTORY);
        let directory = self.open(path, flags, ResolveFlags::empty()).map_err(failed("open", path))?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _directory: directory })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(failed("lock", path)(errno)),
        }
    }

    /// Whether something is there, links followed.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn has(&self, path: &str) -> Result<bool, HostError> {
        match self.open(path, OFlags::PATH, ResolveFlags::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
            Err(errno) => Err(failed("look at", path)(errno)),
        }
    }

    /// What is at a path.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, path: &str) -> Result<File, HostError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        match self.open(path, flags | OFlags::NOFOLLOW, ResolveFlags::empty()) {
            Ok(file) => text_of(file).map_err(failed("read", path)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(File::Absent),
            // A symbolic link; one to nowhere, or out of everything, is something else.
            Err(Errno::LOOP) => match self.open(path, flags, ResolveFlags::empty()) {
                Ok(file) => Ok(match text_of(file).map_err(failed("read", path))? {
                    File::Text(text) => File::Linked(text),
                    other => other,
                }),
                Err(_) => Ok(File::Other("a symbolic link to nothing".to_owned())),
            },
            Err(Errno::NXIO) => Ok(File::Other("no regular file".to_owned())),
            Err(errno) => Err(failed("read", path)(errno)),
        }
    }

    /// Names in a directory, sorted; none where there is no directory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn list(&self, path: &str) -> Result<Vec<String>, HostError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = match self.open(path, flags, ResolveFlags::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            Err(errno) => return Err(failed("list", path)(errno)),
        };
        let entries = rustix::fs::Dir::new(directory).map_err(failed("list", path))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed("list", path))?;
            names.extend(entry.file_name().to_str().ok().map(str::to_owned));
        }
        names.retain(|name| name != "." && name != "..");
        names.sort();
        Ok(names)
    }

    /// Makes a file hold this text, whole or not at all. One that is there keeps its owner, mode and SELinux type.
    ///
    /// # Errors
    /// What the kernel said; the file is as it was then.
    pub fn write(&self, path: &str, text: &str) -> Result<(), HostError> {
        let failed = || failed("write", path);
        let (target, name) = self.parent(path).map_err(failed())?;
        let (beside, _) = self.parent(&staging(path)).map_err(failed())?;
        let there = openat2(
            &target,
            name,
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
            ResolveFlags::BENEATH,
        )
        .ok();
        remove_at(&beside, UNFINISHED).map_err(failed())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new = openat2(&beside, UNFINISHED, flags, Mode::from_raw_mode(0o600), ResolveFlags::BENEATH)
            .map_err(failed())?;
        dress(&new, there.as_ref()).map_err(failed())?;
        let mut new = std::fs::File::from(new);
        let written = new.write_all(text.as_bytes()).and_then(|()| new.sync_all());
        written.map_err(|source| HostError { doing: "write", path: path.to_owned(), source })?;
        renameat(&beside, UNFINISHED, &target, name).map_err(failed())?;
        fsync(&target).map_err(failed())
    }

    /// Removes a file. Ok when there is none.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn remove(&self, path: &str) -> Result<(), HostError> {
        match self.parent(path) {
            Ok((directory, name)) => {
                remove_at(&directory, name).and_then(|()| fsync(&directory)).map_err(failed("remove", path))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(failed("remove", path)(errno)),
        }
    }

    /// Removes what a write that was cut off left beside this file.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn sweep(&self, path: &str) -> Result<(), HostError> {
        self.remove(&staging(path))
    }

    /// Makes a directory. Ok when it is there.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn make_directory(&self, path: &str) -> Result<(), HostError> {
        let made = self.parent(path).and_then(|(directory, name)| {
            match mkdirat(&directory, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => fsync(&directory),
                Err(errno) => Err(errno),
            }
        });
        made.map_err(failed("make", path))
    }

    /// Removes a directory if it is empty.
    ///
    /// # Errors
    /// What the kernel said; that it is not empty, or not there, is none.
    pub fn remove_directory(&self, path: &str) -> Result<(), HostError> {
        let removed = self.parent(path).and_then(|(directory, name)| {
            unlinkat(&directory, name, AtFlags::REMOVEDIR)?;
            fsync(&directory)
        });
        match removed {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(errno) => Err(failed("remove", path)(errno)),
        }
    }
}

/// Where a file is written before it has its name. CRI-O reads every file of its directory, also one that is half there.
fn staging(path: &str) -> String {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let directory = directory.strip_suffix("/crio.conf.d").unwrap_or(directory);
    format!("{directory}/{UNFINISHED}")
}

fn remove_at(directory: &OwnedFd, name: &str) -> Result<(), Errno> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Gives a new file what the old one has, or what configuration files have.
fn dress(new: &OwnedFd, there: Option<&OwnedFd>) -> Result<(), Errno> {
    let Some(there) = there else { return fchmod(new, Mode::from_raw_mode(0o644)) };
    let old: Stat = fstat(there)?;
    fchown(new, Some(rustix::fs::Uid::from_raw(old.st_uid)), Some(rustix::fs::Gid::from_raw(old.st_gid)))?;
    fchmod(new, Mode::from_raw_mode(old.st_mode & 0o7777))?;
    let mut label = vec![0_u8; 256];
    match fgetxattr(there.as_fd(), SELINUX, &mut label) {
        Ok(length) => fsetxattr(new, SELINUX, &label[..length.min(label.len())], XattrFlags::empty()),
        // Without SELinux, or on a file system without its labels.
        Err(_) => Ok(()),
    }
}

fn text_of(file: OwnedFd) -> Result<File, Errno> {
    let found = fstat(&file)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Ok(File::Other("no regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    let read = std::fs::File::from(file).take(LONGEST + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))?;
    if bytes.len() as u64 > LONGEST {
        return Ok(File::Other(format!("longer than {LONGEST} bytes")));
    }
    Ok(String::from_utf8(bytes).map_or_else(|_| File::Other("no text".to_owned()), File::Text))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn links_mean_what_they_mean_on_the_host_and_none_leads_out() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        let root = inside.path();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("real")).unwrap();
        // Up and out, and absolute to a place that only the container has.
        symlink("../../../../../../../real", root.join("etc/up")).unwrap();
        symlink(outside.path(), root.join("etc/out")).unwrap();
        symlink("/real", root.join("etc/absolute")).unwrap();
        symlink(outside.path().join("secret"), root.join("etc/file")).unwrap();
        let host = Host::at(root).unwrap();
        host.write("/etc/up/a", "a").unwrap();
        host.write("/etc/absolute/b", "b").unwrap();
        assert_eq!(fs::read_to_string(root.join("real/a")).unwrap(), "a");
        assert_eq!(fs::read_to_string(root.join("real/b")).unwrap(), "b");
        assert!(host.write("/etc/out/c", "c").is_err());
        assert!(!host.has("/etc/out/secret").unwrap());
        assert_eq!(host.read("/etc/file").unwrap(), File::Other("a symbolic link to nothing".to_owned()));
        // In place of a link, not through it.
        host.write("/etc/file", "mine").unwrap();
        assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "secret");
        assert_eq!(host.read("/etc/file").unwrap(), File::Text("mine".to_owned()));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_keeps_its_mode_and_a_new_one_is_everybodys_to_read() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/crio/crio.conf.d")).unwrap();
        fs::write(root.path().join("etc/a"), "old").unwrap();
        fs::set_permissions(root.path().join("etc/a"), fs::Permissions::from_mode(0o640)).unwrap();
        let host = Host::at(root.path()).unwrap();
        host.write("/etc/a", "new").unwrap();
        host.write("/etc/crio/crio.conf.d/b", "new").unwrap();
        let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("etc/a"), mode("etc/crio/crio.conf.d/b")), (0o640, 0o644));
        assert_eq!(staging("/etc/crio/crio.conf.d/b"), "/etc/crio/.peerpods-install-node");
        fs::write(root.path().join("etc/crio/.peerpods-install-node"), "half").unwrap();
        host.sweep("/etc/crio/crio.conf.d/b").unwrap();
        assert_eq!(host.list("/etc/crio").unwrap(), ["crio.conf.d"]);
    }

    #[test]
    fn one_works_on_a_host_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("var/lib")).unwrap();
        let (first, second) = (Host::at(root.path()).unwrap(), Host::at(root.path()).unwrap());
        let held = first.lock().unwrap();
        assert!(held.is_some() && second.lock().unwrap().is_none());
        drop(held);
        assert!(second.lock().unwrap().is_some());
    }
}
