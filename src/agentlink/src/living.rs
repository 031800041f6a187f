//! Watching and ending a process that is no child of ours, without taking one that got its number later for it.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

/// A process, known by its number and the time it started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pid: i32,
    started: String,
}

impl Process {
    /// The process that has this number now; none when there is none.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        let started = start_of(pid)?;
        Some(Self { pid, started })
    }

    /// Waits for its end; false when it is still there.
    pub(crate) async fn ends_within(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while self.lives() {
            if Instant::now() >= until {
                return false;
            }
            sleep(Duration::from_millis(5)).await;
        }
        true
    }

    pub(crate) fn kill(&self) {
        if self.lives() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }

    /// Whether it is still there; a zombie is not.
    pub(crate) fn lives(&self) -> bool {
        start_of(self.pid).is_some_and(|started| started == self.started)
    }
}

/// When the process started, in the kernel's ticks; none when it is gone or a zombie nobody reaped.
fn start_of(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; after it come state (field 3) and, as field 22, the start.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.to_owned();
    (!matches!(state, "Z" | "X")).then_some(started)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn a_process_is_killed_and_a_zombie_counts_as_gone() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let process = Process::find(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(!process.ends_within(Duration::from_millis(20)).await);
        process.kill();
        assert!(process.ends_within(Duration::from_secs(5)).await, "not reaped yet, and counted as alive");
        child.wait().unwrap();
        assert!(Process::find(process.pid).is_none_or(|other| other.started != process.started));
    }

    #[test]
    fn our_own_process_has_a_start() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(start_of(own).unwrap().parse::<u64>().unwrap() > 0);
    }
}
