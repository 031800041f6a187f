//! The authority's file: read and written under a lock on its directory, refused when others could have read it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::CaError;

const FILE: &str = "ca.pem";
/// More than any key and certificate of ours; a larger file is not ours.
const MAX_SIZE: u64 = 64 * 1024;

/// The directory, held locked so that two processes cannot make two authorities.
pub(super) struct Store {
    path: PathBuf,
    beside: PathBuf,
    dir: File,
}

impl Store {
    pub(super) fn open(dir: &Path) -> Result<Self, CaError> {
        let failed = |doing| move |source| CaError::Storage { doing, path: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("make"))?;
        let handle = File::open(dir).map_err(failed("open"))?;
        let meta = handle.metadata().map_err(failed("look at"))?;
        // Readable by others is harmless (the file is not); writable by others means the key may be exchanged.
        check_ours(dir, &meta, 0o022)?;
        handle.lock().map_err(failed("lock"))?;
        Ok(Self { path: dir.join(FILE), beside: dir.join(".ca.pem.new"), dir: handle })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn read(&self) -> Result<Option<SecretString>, CaError> {
        let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(&self.path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.failed("open", source)),
        };
        let meta = file.metadata().map_err(|e| self.failed("look at", e))?;
        check_ours(&self.path, &meta, 0o077)?;
        let size = usize::try_from(meta.len().min(MAX_SIZE)).unwrap_or(0);
        let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
        file.take(MAX_SIZE).read_to_end(&mut bytes).map_err(|e| self.failed("read", e))?;
        let text = str::from_utf8(&bytes)
            .map_err(|_| CaError::Incomplete { path: self.path.clone(), missing: "private key" })?;
        Ok(Some(SecretString::from(text.to_owned())))
    }

    /// Writes beside, syncs, renames, syncs the directory: whoever looks sees nothing or all of it.
    pub(super) fn write(&self, text: &str) -> Result<(), CaError> {
        match fs::remove_file(&self.beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.failed("remove what was left beside", error));
            }
            _ => {}
        }
        self.place(text).map_err(|source| self.failed("write", source))
    }

    fn place(&self, text: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&self.beside, &self.path)?;
        self.dir.sync_all()
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> CaError {
        CaError::Storage { doing, path: self.path.clone(), source }
    }
}

fn check_ours(path: &Path, meta: &fs::Metadata, forbidden: u32) -> Result<(), CaError> {
    let mode = meta.permissions().mode() & 0o7777;
    let owner = meta.uid();
    if mode & forbidden != 0 || owner != nix::unistd::geteuid().as_raw() {
        return Err(CaError::Exposed { path: path.to_owned(), mode, owner });
    }
    Ok(())
}
