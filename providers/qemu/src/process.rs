//! QEMU processes: found by what their command line says, held by a descriptor that never means another process.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::provider::blocking;

/// How long a process may take to end after SIGTERM, and again after SIGKILL.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A QEMU of ours. Signals go to it or to nobody, even when its number is used again.
pub(crate) struct Process {
    pid: Pid,
    handle: OwnedFd,
}

impl Process {
    /// The process of `uuid` that QEMU's own pid file names.
    pub(crate) async fn from_pid_file(path: &Path, uuid: &str) -> Result<Option<Self>, Failure> {
        let (path, uuid) = (path.to_owned(), uuid.to_owned());
        blocking(move || {
            let text = unless_gone(fs::read_to_string(&path)).map_err(Failure::file("read", &path))?;
            let Some(pid) = text.and_then(|text| text.trim().parse().ok()) else { return Ok(None) };
            Self::hold(pid, &uuid)
        })
        .await
    }

    /// Every process of `uuid` there is, whether a pid file names it or not: one that is just starting has none.
    pub(crate) async fn find(uuid: &str) -> Result<Vec<Self>, Failure> {
        let uuid = uuid.to_owned();
        blocking(move || {
            let dir = Path::new("/proc");
            let failed = || Failure::file("list", dir);
            let mut found = Vec::new();
            for entry in fs::read_dir(dir).map_err(failed())? {
                let name = entry.map_err(failed())?.file_name();
                let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
                found.extend(Self::hold(pid, &uuid)?);
            }
            Ok(found)
        })
        .await
    }

    fn hold(pid: i32, uuid: &str) -> Result<Option<Self>, Failure> {
        if !is_of(pid, uuid)? {
            return Ok(None);
        }
        let Some(pid) = Pid::from_raw(pid) else { return Ok(None) };
        let opened = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from);
        let handle = unless_gone(opened).map_err(Failure::file("hold the process", &directory(pid)))?;
        // Looked at again: between the first look and the handle the number may have gone to another.
        let same = is_of(pid.as_raw_nonzero().get(), uuid)?;
        Ok(handle.filter(|_| same).map(|handle| Self { pid, handle }))
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits for the end; `false` when it has not come within `patience`.
    pub(crate) async fn ended(&self, patience: Duration) -> Result<bool, Failure> {
        let deadline = Instant::now() + patience;
        loop {
            // The handle becomes readable when the process ends, reaped or not.
            let mut asked = [PollFd::new(self.handle.as_fd(), PollFlags::POLLIN)];
            match poll(&mut asked, PollTimeout::ZERO) {
                Ok(0) | Err(Errno::EINTR) if Instant::now() >= deadline => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => tokio::time::sleep(LOOK_AGAIN).await,
                Ok(_) => return Ok(true),
                Err(errno) => {
                    return Err(Failure::file("watch the process", Path::new("/proc"))(errno.into()));
                }
            }
        }
    }

    /// Ends it: SIGTERM, then SIGKILL.
    pub(crate) async fn end(&self) -> Result<(), Failure> {
        for signal in [Signal::TERM, Signal::KILL] {
            match pidfd_send_signal(&self.handle, signal) {
                Ok(()) => {}
                Err(rustix::io::Errno::SRCH) => return Ok(()),
                Err(errno) => {
                    return Err(Failure::file("signal the process", Path::new("/proc"))(errno.into()));
                }
            }
            if self.ended(PATIENCE).await? {
                return Ok(());
            }
        }
        Err(Failure::Immortal { pid: self.pid() })
    }
}

fn directory(pid: Pid) -> PathBuf {
    Path::new("/proc").join(pid.as_raw_nonzero().to_string())
}

fn is_of(pid: i32, uuid: &str) -> Result<bool, Failure> {
    let path = Path::new("/proc").join(pid.to_string()).join("cmdline");
    let line = match unless_gone(fs::read(&path)) {
        // Somebody else's process, on a host that hides them: ours are never hidden from us.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        line => line.map_err(Failure::file("read", &path))?,
    };
    Ok(line.is_some_and(|line| names_vm(&line, uuid)))
}

/// `None` when there is nothing any more. Any other error says nothing about what is there: whoever takes it for an absence ends a VM that runs.
fn unless_gone<T>(looked: io::Result<T>) -> io::Result<Option<T>> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a command line (arguments that each end with NUL) is that of the VM `uuid`. Somebody who merely searches for the VM
/// has the words in one argument or in another order.
fn names_vm(line: &[u8], uuid: &str) -> bool {
    let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    arguments.windows(2).any(|pair| pair[0] == b"-uuid" && pair[1] == uuid.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use futures::FutureExt;
    use nix::sys::resource::{Resource, setrlimit};

    use super::*;

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A process that looks like the VM `uuid` and ignores SIGTERM.
    fn stubborn(uuid: &str) -> Killed {
        // Nothing that forks: between fork and exec a child looks like the VM, too.
        let script = "trap '' TERM; read nothing";
        let mut shell = Command::new("sh");
        Killed(shell.args(["-c", script, "sh", "-uuid", uuid]).stdin(Stdio::piped()).spawn().unwrap())
    }

    #[test]
    fn only_the_option_followed_by_the_id_counts() {
        assert!(names_vm(b"qemu\0-uuid\0abc\0-m\x001\0", "abc"));
        assert!(!names_vm(b"grep\0-uuid abc\0", "abc") && !names_vm(b"qemu\0-uuid\0abcd\0", "abc"));
        assert!(!names_vm(b"", "abc"));
    }

    #[tokio::test]
    async fn a_process_is_found_by_its_id_and_ended_even_when_it_ignores_sigterm() {
        let uuid = format!("test-{}-stubborn", std::process::id());
        let _child = stubborn(&uuid);
        // The name is there only once the shell runs.
        let mut found = Vec::new();
        while found.is_empty() {
            found = Process::find(&uuid).await.unwrap();
        }
        assert_eq!(found.len(), 1);
        assert!(!found[0].ended(Duration::from_millis(20)).await.unwrap());
        found[0].end().await.unwrap();
        found[0].end().await.unwrap();
        assert!(Process::find(&uuid).await.unwrap().is_empty(), "a zombie is no process of ours any more");
    }

    #[tokio::test]
    async fn looking_at_every_process_keeps_nobody_else_waiting() {
        assert!(
            Process::find("some-uuid").now_or_never().is_none(),
            "it looked before it gave its thread back"
        );
    }

    #[tokio::test]
    async fn a_pid_file_that_names_a_stranger_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        for text in [format!("{}\n", std::process::id()), "no number".to_owned()] {
            fs::write(&path, text).unwrap();
            assert!(Process::from_pid_file(&path, "some-uuid").await.unwrap().is_none());
        }
    }

    /// In a process of its own, because the limit is everybody's.
    #[test]
    fn a_service_without_descriptors_left_takes_no_vm_for_gone() {
        const CHILD: &str = "PEERPODS_TEST_WITHOUT_DESCRIPTORS";
        if std::env::var_os(CHILD).is_some() {
            return without_descriptors();
        }
        let name = "process::tests::a_service_without_descriptors_left_takes_no_vm_for_gone";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let done = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success() && said.contains("1 passed"), "{said}{:?}", done.stderr);
    }

    fn without_descriptors() {
        let uuid = format!("test-{}-unseen", std::process::id());
        let child = stubborn(&uuid);
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        fs::write(&pid_file, child.0.id().to_string()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let find = || runtime.block_on(Process::find(&uuid));
        while find().unwrap().is_empty() {}
        setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
        let mut taken: Vec<fs::File> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
        assert!(find().is_err(), "none left");
        assert!(runtime.block_on(Process::from_pid_file(&pid_file, &uuid)).is_err());
        taken.pop();
        assert!(find().is_err(), "one left, which the list of processes takes");
        assert!(runtime.block_on(Process::from_pid_file(&pid_file, &uuid)).is_err(), "one, for the handle");
        taken.clear();
        assert_eq!(find().unwrap().len(), 1);
    }
}
