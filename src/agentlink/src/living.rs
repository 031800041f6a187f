//! Watching and ending a process that is no child of ours, without taking one that got its number later for it.

use std::fs;
use std::io;
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
    ///
    /// # Errors
    /// When that could not be found out.
    pub(crate) fn find(pid: i32) -> io::Result<Option<Self>> {
        Ok(start_of(pid)?.map(|started| Self { pid, started }))
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

    /// Whether it is still there, as far as anybody can tell; a zombie is not.
    pub(crate) fn lives(&self) -> bool {
        start_of(self.pid).map_or(true, |started| started.is_some_and(|started| started == self.started))
    }
}

/// When the process started, in the kernel's ticks; none when it is gone or a zombie nobody reaped.
fn start_of(pid: i32) -> io::Result<Option<String>> {
    let stat = match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    started(&String::from_utf8_lossy(&stat)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// There is none, or it went while it was looked at.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

/// The start of the process that this line of `/proc/PID/stat` is about: none when it is over; none at all for another text.
fn started(stat: &str) -> Option<Option<String>> {
    // The name, in parentheses, may hold anything; after it come state (field 3) and, as field 22, the start.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.to_owned();
    Some((!matches!(state, "Z" | "X")).then_some(started))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn a_process_is_killed_and_a_zombie_counts_as_gone() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let process = Process::find(i32::try_from(child.id()).unwrap()).unwrap().unwrap();
        assert!(!process.ends_within(Duration::from_millis(20)).await);
        process.kill();
        assert!(process.ends_within(Duration::from_secs(5)).await, "not reaped yet, and counted as alive");
        child.wait().unwrap();
        assert!(Process::find(process.pid).unwrap().is_none_or(|other| other.started != process.started));
    }

    #[test]
    fn our_own_process_has_a_start() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(start_of(own).unwrap().unwrap().parse::<u64>().unwrap() > 0);
    }

    #[test]
    fn a_name_may_hold_anything_and_what_is_no_such_line_says_nothing() {
        let rest = "S 1 1 1 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 4711 1";
        let cut_name = String::from_utf8_lossy(b"7 (f\xc3) ) ").into_owned();
        assert_eq!(started(&format!("{cut_name}{rest}")), Some(Some("4711".to_owned())));
        assert_eq!(started(&format!("7 (z) {}", rest.replacen('S', "Z", 1))), Some(None));
        assert_eq!(started("7 (half"), None);
    }
}
