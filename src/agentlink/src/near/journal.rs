//! The link's log file: private, bounded, locked while the process lives.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::NearError;

/// The file never grows beyond this many bytes; it lies on a tmpfs.
const MAX_SIZE: u64 = 256 * 1024;

/// Writes lines to the log; when it is full, its older half goes.
pub struct Journal {
    file: File,
    size: u64,
}

impl Journal {
    /// Opens the log and takes the lock that says "this sandbox has a link". The second value is the lock: keep it.
    pub(super) fn open_locked(path: &Path) -> Result<(Self, File), NearError> {
        let failed = |doing| move |source| NearError::Place { doing, path: path.to_owned(), source };
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path)
            .map_err(failed("open the log"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(NearError::AlreadyRunning(path.to_owned())),
            Err(std::fs::TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        let size = file.metadata().map_err(failed("look at"))?.len();
        let lock = file.try_clone().map_err(failed("open the log"))?;
        Ok((Self { file, size }, lock))
    }

    fn halve(&mut self) -> io::Result<()> {
        let mut kept = Vec::new();
        self.file.seek(SeekFrom::Start(self.size.saturating_sub(MAX_SIZE / 2)))?;
        (&self.file).take(MAX_SIZE).read_to_end(&mut kept)?;
        let line_start = kept.iter().position(|byte| *byte == b'\n').map_or(kept.len(), |at| at + 1);
        self.file.set_len(0)?;
        let tail = kept.get(line_start..).unwrap_or_default();
        self.file.write_all(tail)?;
        self.size = u64::try_from(tail.len()).unwrap_or(0);
        Ok(())
    }
}

impl Write for Journal {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = u64::try_from(line.len()).unwrap_or(MAX_SIZE);
        if self.size + length > MAX_SIZE {
            self.halve()?;
        }
        self.file.write_all(line)?;
        self.size += length;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_stays_bounded_and_keeps_its_newest_lines_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link.log");
        let (mut journal, _lock) = Journal::open_locked(&path).unwrap();
        for number in 0..20_000 {
            writeln!(journal, "line {number} of many that fill the log").unwrap();
            assert!(journal.size <= MAX_SIZE);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(u64::try_from(text.len()).unwrap(), journal.size);
        assert!(text.ends_with("line 19999 of many that fill the log\n"));
        assert!(text.lines().all(|line| line.starts_with("line ")));
    }

    #[test]
    fn a_second_link_does_not_get_the_lock_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link.log");
        let first = Journal::open_locked(&path).unwrap();
        assert!(matches!(Journal::open_locked(&path), Err(NearError::AlreadyRunning(_))));
        drop(first);
        assert!(Journal::open_locked(&path).is_ok());
    }
}
