//! CopyFile: files from the node, confined to one directory.
//!
//! Every step is taken relative to a directory that is already open, and the kernel refuses to leave the confines
//! (`openat2` with RESOLVE_BENEATH), so neither `..` nor a link inside helps to get out. A file appears under its name only when its
//! last piece is there, so that a container never reads half of one.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use peerpods_proto::ttrpc::agent::CopyFileRequest;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fchmod, fchown, mkdirat, openat2,
    renameat, symlinkat, unlinkat,
};

/// Where files may go.
pub const SHARED: &str = "/run/kata-containers/shared/containers";

/// Follows links only where they stay within the confines.
const CONFINED: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// Why a file could not be copied in.
#[derive(Debug, thiserror::Error)]
pub enum CopyFileError {
    /// A path outside of the confines, or with `..` in it.
    #[error("{path:?} is not a plain path below {root:?}")]
    Outside {
        /// The path asked for.
        path: String,
        /// The confines.
        root: PathBuf,
    },
    /// Neither file nor directory nor link.
    #[error("{path:?} is to be a {kind:?}; only files, directories and links can be copied")]
    Kind {
        /// The path asked for.
        path: String,
        /// The type asked for.
        kind: FileType,
    },
    /// A piece that does not fit the size.
    #[error("a piece of {len} bytes at {offset} does not fit {path:?} of {size} bytes")]
    Piece {
        /// The path asked for.
        path: String,
        /// Where the piece goes.
        offset: i64,
        /// Its length.
        len: usize,
        /// The size of the whole.
        size: i64,
    },
    /// A step failed.
    #[error("cannot {what} {path:?}")]
    Step {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl CopyFileError {
    /// Whether the request is at fault, rather than the VM. A link that leads out of the confines counts as such.
    #[must_use]
    pub fn is_request_fault(&self) -> bool {
        match self {
            Self::Step { source, .. } => {
                source.raw_os_error() == Some(rustix::io::Errno::XDEV.raw_os_error())
            }
            Self::Outside { .. } | Self::Kind { .. } | Self::Piece { .. } => true,
        }
    }
}

/// Takes one piece of a file, a directory, or a link, into `root`.
///
/// # Errors
/// [`CopyFileError`].
pub fn copy(request: &CopyFileRequest, root: &Path) -> Result<(), CopyFileError> {
    let (folders, name) = inside(&request.path, root)?;
    std::fs::create_dir_all(root).map_err(|source| CopyFileError::Step {
        what: "make",
        path: root.to_owned(),
        source,
    })?;
    let at = Place { dir: open_parents(request, root, &folders)?, name, full: PathBuf::from(&request.path) };
    match FileType::from_raw_mode(request.file_mode) {
        // A mode without a type is a file's, as older shims send it.
        FileType::RegularFile => at.write_piece(request),
        FileType::Unknown if request.file_mode & 0o170_000 == 0 => at.write_piece(request),
        FileType::Directory => at.make_directory(request),
        FileType::Symlink => at.make_link(request),
        kind => Err(CopyFileError::Kind { path: request.path.clone(), kind }),
    }
}

/// The directories between `root` and the last name, and that name.
fn inside(path: &str, root: &Path) -> Result<(Vec<PathBuf>, PathBuf), CopyFileError> {
    let outside = || CopyFileError::Outside { path: path.to_owned(), root: root.to_owned() };
    let rest = Path::new(path).strip_prefix(root).map_err(|_| outside())?;
    let mut names = Vec::new();
    for component in rest.components() {
        match component {
            Component::Normal(name) => names.push(PathBuf::from(name)),
            _ => return Err(outside()),
        }
    }
    let name = names.pop().ok_or_else(outside)?;
    Ok((names, name))
}

fn open_parents(
    request: &CopyFileRequest,
    root: &Path,
    folders: &[PathBuf],
) -> Result<OwnedFd, CopyFileError> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH;
    let mut dir = rustix::fs::open(root, flags, Mode::empty()).map_err(|error| CopyFileError::Step {
        what: "open",
        path: root.to_owned(),
        source: error.into(),
    })?;
    for folder in folders {
        let fail = |what, error: rustix::io::Errno| CopyFileError::Step {
            what,
            path: folder.clone(),
            source: error.into(),
        };
        match mkdirat(&dir, folder, Mode::from_raw_mode(request.dir_mode & 0o777)) {
            Ok(()) => chownat(&dir, folder, owner(request), group(request), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| fail("give away", error))?,
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(fail("make", error)),
        }
        dir = openat2(&dir, folder, flags, Mode::empty(), CONFINED).map_err(|error| fail("open", error))?;
    }
    Ok(dir)
}

fn owner(request: &CopyFileRequest) -> Option<Uid> {
    Some(Uid::from_raw(request.uid.unsigned_abs()))
}

fn group(request: &CopyFileRequest) -> Option<Gid> {
    Some(Gid::from_raw(request.gid.unsigned_abs()))
}

/// A name in an open directory.
struct Place {
    dir: OwnedFd,
    name: PathBuf,
    /// For messages.
    full: PathBuf,
}

impl Place {
    fn fail(&self, what: &'static str) -> impl Fn(rustix::io::Errno) -> CopyFileError {
        let path = self.full.clone();
        move |error| CopyFileError::Step { what, path: path.clone(), source: error.into() }
    }

    fn write_piece(&self, request: &CopyFileRequest) -> Result<(), CopyFileError> {
        let (offset, len, size) = (request.offset, request.data.len(), request.file_size);
        let misfit = || CopyFileError::Piece { path: request.path.clone(), offset, len, size };
        let start = u64::try_from(offset).map_err(|_| misfit())?;
        let whole = u64::try_from(size).map_err(|_| misfit())?;
        let end = start.checked_add(len as u64).filter(|end| *end <= whole).ok_or_else(misfit)?;

        let part = self.part();
        let mut flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        flags.set(OFlags::TRUNC, start == 0);
        let fd = openat2(&self.dir, &part, flags, Mode::from_raw_mode(0o600), CONFINED)
            .map_err(self.fail("open"))?;
        let file = File::from(fd);
        file.write_all_at(&request.data, start).map_err(|source| CopyFileError::Step {
            what: "write",
            path: self.full.clone(),
            source,
        })?;
        if end < whole {
            return Ok(());
        }
        fchown(&file, owner(request), group(request)).map_err(self.fail("give away"))?;
        fchmod(&file, Mode::from_raw_mode(request.file_mode & 0o7777))
            .map_err(self.fail("set the mode of"))?;
        renameat(&self.dir, &part, &self.dir, &self.name).map_err(self.fail("put in place"))
    }

    /// The name of a file that is not complete yet.
    fn part(&self) -> PathBuf {
        let mut name = std::ffi::OsString::from(".");
        name.push(&self.name);
        name.push(".incoming");
        PathBuf::from(name)
    }

    fn make_directory(&self, request: &CopyFileRequest) -> Result<(), CopyFileError> {
        match mkdirat(&self.dir, &self.name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(self.fail("make")(error)),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let made =
            openat2(&self.dir, &self.name, flags, Mode::empty(), CONFINED).map_err(self.fail("open"))?;
        fchown(&made, owner(request), group(request)).map_err(self.fail("give away"))?;
        fchmod(&made, Mode::from_raw_mode(request.file_mode & 0o7777)).map_err(self.fail("set the mode of"))
    }

    /// Under another name first, so that a link that is replaced (as kubelet does with `..data`) is never missing.
    fn make_link(&self, request: &CopyFileRequest) -> Result<(), CopyFileError> {
        let part = self.part();
        match unlinkat(&self.dir, &part, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(self.fail("replace")(error)),
        }
        symlinkat(request.data.as_slice(), &self.dir, &part).map_err(self.fail("make"))?;
        chownat(&self.dir, &part, owner(request), group(request), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(self.fail("give away"))?;
        renameat(&self.dir, &part, &self.dir, &self.name).map_err(self.fail("put in place"))
    }
}

#[cfg(test)]
#[path = "copy_file_tests.rs"]
mod tests;
