//! Finding the programs we start: beside our own executable first, because they are of one build, else on the PATH.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The near end of an agent link, a process per sandbox.
pub const LINK: &str = "peerpods-link";
/// The daemon in the VM.
pub const GUEST: &str = "peerpods-guest";
/// The small agent.
pub const MINIAGENT: &str = "miniagent";

/// A program that was not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} was not found: looked for {}", looked.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
pub struct NotFound {
    /// Its name.
    pub name: String,
    /// Where it was looked for.
    pub looked: Vec<PathBuf>,
}

/// Where programs are looked for.
#[derive(Debug, Clone, Default)]
pub struct Places(pub Vec<PathBuf>);

impl Places {
    /// Beside this executable, then the PATH.
    #[must_use]
    pub fn of_this_process() -> Self {
        let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned()));
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self(beside.into_iter().chain(std::env::split_paths(&path)).collect())
    }

    /// A program: as configured if it is a path, else by name in these places.
    ///
    /// # Errors
    /// When nothing executable is there.
    pub fn find(&self, configured: &Path) -> Result<PathBuf, NotFound> {
        let candidates: Vec<PathBuf> = if configured.is_absolute() {
            vec![configured.to_owned()]
        } else {
            self.0.iter().map(|place| place.join(configured)).collect()
        };
        match candidates.iter().find(|path| is_executable(path)) {
            Some(path) => Ok(path.clone()),
            None => Err(NotFound { name: configured.display().to_string(), looked: candidates }),
        }
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_with_an_executable_wins() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let places = Places(vec![one.path().to_owned(), two.path().to_owned()]);
        let program = |dir: &tempfile::TempDir, mode| {
            let path = dir.path().join("p");
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let plain = program(&one, 0o644);
        let executable = program(&two, 0o755);
        assert_eq!(places.find(Path::new("p")), Ok(executable.clone()));
        assert_eq!(places.find(&executable), Ok(executable));
        assert!(places.find(&plain).is_err());
        assert_eq!(places.find(Path::new("q")).unwrap_err().looked.len(), 2);
    }
}
