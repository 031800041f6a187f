//! QEMU processes: found by what their command line says, held by a descriptor that never means another process.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

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
        let named = move || Self::hold(fs::read_to_string(path).ok()?.trim().parse().ok()?, &uuid);
        blocking(move || Ok(named())).await
    }

    /// Every process of `uuid` there is, whether a pid file names it or not: one that is just starting has none.
    pub(crate) async fn find(uuid: &str) -> Result<Vec<Self>, Failure> {
        let uuid = uuid.to_owned();
        blocking(move || {
            let dir = Path::new("/proc");
            let entries = fs::read_dir(dir).map_err(Failure::file("list", dir))?;
            let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            Ok(numbers.filter_map(|pid| Self::hold(pid, &uuid)).collect())
        })
        .await
    }

    fn hold(pid: i32, uuid: &str) -> Option<Self> {
        if !is_of(pid, uuid) {
            return None;
        }
        let pid = Pid::from_raw(pid)?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Looked at again: between the first look and the handle the number may have gone to another.
        is_of(pid.as_raw_nonzero().get(), uuid).then_some(Self { pid, handle })
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

fn is_of(pid: i32, uuid: &str) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| names_vm(&line, uuid))
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
}
