//! Which processes connected to the agent socket, and whether one of them still lives.
//!
//! A shim that lost its connection may come back as long as it lives; once it is gone, nobody will ask for this sandbox again. The
//! daemon cannot know: it may not have been there. Only a few processes are kept.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::net::UnixStream;

use crate::link::ShimProcess;
use crate::living::Process;

/// How many processes are remembered. A pod has one shim; `peerpods sandbox exec` is one more each.
const KEPT: usize = 8;

/// The processes that connected.
#[derive(Debug, Default)]
pub(super) struct Peers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    living: Vec<Process>,
    /// Some process connected.
    any: bool,
    /// Some process connected that cannot be watched, or was forgotten while it lived. So nobody may say "all are gone".
    unwatched: bool,
}

impl Peers {
    /// Remembers who made a connection.
    pub(super) fn note(&self, stream: &UnixStream) {
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()).unwrap_or(0);
        self.locked().note(pid);
    }

    /// Whether one of them lives.
    pub(super) fn state(&self) -> ShimProcess {
        self.locked().state()
    }

    fn locked(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// 0 is a process of another pid namespace, by the kernel's convention.
    fn note(&mut self, pid: i32) {
        self.any = true;
        if pid <= 0 {
            self.unwatched = true;
            return;
        }
        let process = match Process::find(pid) {
            Ok(Some(process)) => process,
            // One that is gone by now is as good as noted: it is gone.
            Ok(None) => return,
            Err(_) => {
                self.unwatched = true;
                return;
            }
        };
        if self.living.contains(&process) {
            return;
        }
        self.living.retain(Process::lives);
        if self.living.len() < KEPT {
            self.living.push(process);
        } else {
            self.unwatched = true;
        }
    }

    fn state(&self) -> ShimProcess {
        match () {
            () if self.living.iter().any(Process::lives) => ShimProcess::Lives,
            () if self.unwatched || !self.any => ShimProcess::Unknown,
            () => ShimProcess::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn process() -> (Child, i32) {
        let child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        (child, pid)
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn one_that_lives_among_several_is_enough_and_all_must_be_gone() {
        let mut known = Known::default();
        assert_eq!(known.state(), ShimProcess::Unknown);
        let ((first, a), (second, b)) = (process(), process());
        known.note(a);
        known.note(b);
        end(second);
        assert_eq!(known.state(), ShimProcess::Lives);
        end(first);
        assert_eq!(known.state(), ShimProcess::Gone);
    }

    #[test]
    fn a_process_of_another_namespace_is_never_called_gone() {
        let mut known = Known::default();
        let (child, pid) = process();
        known.note(0);
        known.note(pid);
        assert_eq!(known.state(), ShimProcess::Lives);
        end(child);
        assert_eq!(known.state(), ShimProcess::Unknown);
    }

    #[test]
    fn only_a_few_are_kept_and_one_that_was_not_is_never_called_gone() {
        let mut known = Known::default();
        let children: Vec<_> = (0..KEPT + 1).map(|_| process()).collect();
        for (_, pid) in &children {
            known.note(*pid);
            known.note(*pid);
        }
        assert_eq!(known.living.len(), KEPT);
        children.into_iter().for_each(|(child, _)| end(child));
        assert_eq!(known.state(), ShimProcess::Unknown);
        let (child, pid) = process();
        known.note(pid);
        assert_eq!(known.living.len(), 1, "the dead make room");
        end(child);
    }
}
