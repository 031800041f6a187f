//! Finding the program in the container, and becoming it.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, execve};

use crate::control::{Failure, FailureKind};
use crate::plan::ProcessPlan;

/// Where programs are looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program that was found, with all it is given.
pub(super) struct Program {
    path: PathBuf,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// Looks the program up, in the container.
pub(super) fn find(process: &ProcessPlan) -> Result<Program, Failure> {
    let name = process.args.first().map(String::as_str).unwrap_or_default();
    let path = if name.contains('/') { PathBuf::from(name) } else { search(name, process)? };
    if !path.starts_with("/") {
        // Relative to the working directory, which is entered later: execve will say.
    } else if let Err(error) = access(&path, AccessFlags::X_OK) {
        return Err(not_executable(&path, error));
    }
    let mut env = texts(&process.env)?;
    if variable(process, "HOME").is_none() {
        env.extend(CString::new(format!("HOME={}", home(process.uid))).ok());
    }
    Ok(Program { path, args: texts(&process.args)?, env })
}

fn search(name: &str, process: &ProcessPlan) -> Result<PathBuf, Failure> {
    let path = variable(process, "PATH").unwrap_or(DEFAULT_PATH);
    let candidates = path.split(':').map(|dir| Path::new(dir).join(name));
    let mut usable = candidates.filter(|c| c.is_file() && access(c, AccessFlags::X_OK).is_ok());
    usable.next().ok_or_else(|| Failure {
        kind: FailureKind::ProgramNotFound,
        what: format!("run {name:?}"),
        cause: "executable file not found in $PATH".into(),
    })
}

fn variable<'a>(process: &'a ProcessPlan, name: &str) -> Option<&'a str> {
    process.env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
}

/// The user's directory by the container's /etc/passwd.
fn home(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let uid = uid.to_string();
    let line = passwd.lines().find(|line| line.split(':').nth(2) == Some(uid.as_str()));
    line.and_then(|line| line.split(':').nth(5)).filter(|home| !home.is_empty()).unwrap_or("/").to_owned()
}

fn texts(values: &[String]) -> Result<Vec<CString>, Failure> {
    let text = |value: &String| {
        CString::new(value.as_str()).map_err(|error| Failure::setup(format!("pass {value:?}"), error))
    };
    values.iter().map(text).collect()
}

fn not_executable(path: &Path, error: Errno) -> Failure {
    let missing = matches!(error, Errno::ENOENT | Errno::ENOTDIR);
    let kind = if missing { FailureKind::ProgramNotFound } else { FailureKind::Setup };
    Failure { kind, what: format!("run {path:?}"), cause: error.to_string() }
}

impl Program {
    /// Becomes the program.
    pub(super) fn execute(self) -> Result<Infallible, Failure> {
        let path = CString::new(self.path.as_os_str().as_encoded_bytes())
            .map_err(|error| Failure::setup(format!("run {:?}", self.path), error))?;
        execve(&path, &self.args, &self.env).map_err(|error| not_executable(&self.path, error))
    }
}
