//! The link program on the host: `<bin dir>/<version>/peerpods-link`, because a unit of the host's systemd sees the host's files and not those
//! of our container. It is placed whole or not at all, and old versions go when no unit runs them.
//!
//! SELinux labels are left as the directory gives them; the README says what to label.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The program's name in each version's directory.
const NAME: &str = "peerpods-link";
/// What it is called while it is written. Only the holder of the lock on the directory writes it.
const UNFINISHED: &str = ".peerpods-link.new";

/// The program cannot be placed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {} to place the link program on the host", path.display())]
pub(super) struct PlaceError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PlaceError + use<'a> {
    move |source| PlaceError { doing, path: path.to_owned(), source }
}

/// Makes sure that `program` lies in `bin_dir` under `version`, and says where.
pub(super) fn place(program: &Path, bin_dir: &Path, version: &str) -> Result<PathBuf, PlaceError> {
    let dir = bin_dir.join(version);
    for made in [bin_dir, &dir] {
        DirBuilder::new().recursive(true).mode(0o755).create(made).map_err(failed("make", made))?;
    }
    let target = dir.join(NAME);
    let lock = File::open(bin_dir).map_err(failed("open", bin_dir))?;
    lock.lock().map_err(failed("lock", bin_dir))?;
    if is_same(program, &target).map_err(failed("compare", &target))? {
        return Ok(target);
    }
    let unfinished = dir.join(UNFINISHED);
    copy(program, &unfinished).map_err(failed("write", &unfinished))?;
    fs::rename(&unfinished, &target).map_err(failed("put in place", &target))?;
    File::open(&dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", &dir))?;
    Ok(target)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(to)?;
    io::copy(&mut File::open(from)?, &mut file)?;
    // Whatever the umask is: systemd executes it as root, and others may look at it.
    file.set_permissions(Permissions::from_mode(0o755))?;
    file.sync_all()
}

/// Whether `target` is what `copy` would make: ours, executable, of the same size and the same SHA-256.
fn is_same(program: &Path, target: &Path) -> io::Result<bool> {
    let found = match fs::symlink_metadata(target) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let ours = found.is_file()
        && found.permissions().mode() & 0o7777 == 0o755
        && found.uid() == nix::unistd::geteuid().as_raw();
    Ok(ours && found.len() == fs::metadata(program)?.len() && digest(program)? == digest(target)?)
}

fn digest(path: &Path) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hash.finalize().into())
}

/// Removes versions other than `ours` that no unit runs. Only what was placed here goes, and a directory only when nothing else is in it.
/// Returns what was removed.
pub(super) fn sweep(bin_dir: &Path, ours: &str, in_use: &[PathBuf]) -> Result<Vec<PathBuf>, PlaceError> {
    let mut removed = Vec::new();
    for entry in fs::read_dir(bin_dir).map_err(failed("read", bin_dir))? {
        let dir = entry.map_err(failed("read", bin_dir))?.path();
        let program = dir.join(NAME);
        let is_version = fs::symlink_metadata(&dir).is_ok_and(|found| found.is_dir());
        if !is_version || dir == bin_dir.join(ours) || in_use.contains(&program) {
            continue;
        }
        for file in [&program, &dir.join(UNFINISHED)] {
            match fs::remove_file(file) {
                Ok(()) => removed.push(file.clone()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("remove", file)(error)),
            }
        }
        let _ = fs::remove_dir(&dir);
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(dir: &Path, content: &str) -> PathBuf {
        let path = dir.join("program");
        fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn it_is_placed_executable_once_and_replaced_when_it_differs() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("state/bin");
        let first = place(&program(root.path(), "one"), &bin, "1.0").unwrap();
        assert_eq!(first, bin.join("1.0/peerpods-link"));
        let inode = || fs::metadata(&first).unwrap().ino();
        assert_eq!(fs::metadata(&first).unwrap().mode() & 0o7777, 0o755);
        let before = inode();
        place(&program(root.path(), "one"), &bin, "1.0").unwrap();
        assert_eq!(inode(), before, "an identical one was written again");
        place(&program(root.path(), "two"), &bin, "1.0").unwrap();
        assert_eq!(fs::read_to_string(&first).unwrap(), "two");
        assert_ne!(inode(), before, "a program that may run was written to");
        fs::set_permissions(&first, Permissions::from_mode(0o777)).unwrap();
        place(&program(root.path(), "two"), &bin, "1.0").unwrap();
        assert_eq!(fs::metadata(&first).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(bin.join("1.0")).unwrap().count(), 1);
    }

    #[test]
    fn what_an_interrupted_write_left_is_written_over_and_a_link_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("1.0");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(UNFINISHED), "half").unwrap();
        let elsewhere = root.path().join("elsewhere");
        fs::write(&elsewhere, "whole").unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.join(NAME)).unwrap();
        let placed = place(&program(root.path(), "whole"), root.path(), "1.0").unwrap();
        assert!(fs::symlink_metadata(&placed).unwrap().is_file());
        assert_eq!(fs::read_to_string(placed).unwrap(), "whole");
    }

    #[test]
    fn old_versions_go_unless_a_unit_runs_them_and_nothing_else_goes() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("bin");
        let from = program(root.path(), "x");
        let [used, ours] = ["1", "3"].map(|version| place(&from, &bin, version).unwrap());
        let old = place(&from, &bin, "2").unwrap();
        fs::create_dir(bin.join("mine")).unwrap();
        fs::write(bin.join("mine/file"), "x").unwrap();
        fs::write(bin.join("peerpods-link"), "x").unwrap();
        assert_eq!(sweep(&bin, "3", std::slice::from_ref(&used)).unwrap(), std::slice::from_ref(&old));
        assert!(used.exists() && ours.exists() && !old.parent().unwrap().exists());
        assert!(bin.join("mine/file").exists() && bin.join("peerpods-link").exists());
    }

    #[test]
    fn an_error_names_the_path() {
        let root = tempfile::tempdir().unwrap();
        let error = place(&root.path().join("missing"), &root.path().join("bin"), "1").unwrap_err();
        assert!(error.to_string().contains(".peerpods-link.new"), "{error}");
    }
}
