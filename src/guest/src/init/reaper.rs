//! What PID 1 does for the rest of its life: waits for every process that has no other parent, and for a word to go down.

use std::fmt;
use std::io;
use std::process::Child;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::uptime::Uptime;

/// How long the service may take to end when the VM goes down.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Words to go down: kill, `poweroff` of busybox, a power failure.
const DOWN: [Signal; 3] = [Signal::SIGTERM, Signal::SIGUSR2, Signal::SIGPWR];

/// Why it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// The service ended, and how.
    Service(String),
    /// We were told to go down; the service has been told as well.
    Told(Signal),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(how) => write!(f, "the service ended ({how})"),
            Self::Told(signal) => write!(f, "{signal} received"),
        }
    }
}

/// Reaps until the service ends or somebody says that the VM goes down.
///
/// # Errors
/// When signals cannot be waited for.
pub(super) fn tend(service: Child) -> io::Result<Ending> {
    let service = Pid::from_raw(i32::try_from(service.id()).map_err(io::Error::other)?);
    let mut signals: SigSet = DOWN.into_iter().collect();
    signals.add(Signal::SIGCHLD);
    // Blocked, so that one that comes while we reap waits for us. What ended before this line is seen by the first round.
    signals.thread_block()?;
    loop {
        if let Some(how) = reap(service)? {
            return Ok(Ending::Service(how));
        }
        let signal = signals.wait()?;
        if DOWN.contains(&signal) {
            stop(service);
            return Ok(Ending::Told(signal));
        }
    }
}

/// Reaps everything that has ended; answers how the service ended when it was among them.
fn reap(service: Pid) -> io::Result<Option<String>> {
    let mut ended = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(ended),
            Ok(status) if status.pid() == Some(service) => ended = how(status).or(ended),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// In words, when it has ended.
fn how(status: WaitStatus) -> Option<String> {
    match status {
        WaitStatus::Exited(_, code) => Some(format!("exit status {code}")),
        WaitStatus::Signaled(_, signal, _) => Some(format!("killed by {signal}")),
        _ => None,
    }
}

fn stop(service: Pid) {
    let started = Uptime::now();
    // Errors mean that it has ended already.
    let _ = kill(service, Signal::SIGTERM);
    while Uptime::now().since(started) < PATIENCE {
        match reap(service) {
            Ok(None) => std::thread::sleep(LOOK_AGAIN),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_is_an_end() {
        let pid = Pid::from_raw(7);
        assert_eq!(how(WaitStatus::Exited(pid, 3)).as_deref(), Some("exit status 3"));
        assert_eq!(
            how(WaitStatus::Signaled(pid, Signal::SIGKILL, false)).as_deref(),
            Some("killed by SIGKILL")
        );
        assert_eq!(how(WaitStatus::Continued(pid)), None);
    }
}
