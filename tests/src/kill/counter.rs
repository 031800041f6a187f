//! A pod whose container counts, and a client that reads its output over the agent socket as a shim does, judging every line.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use peerpods::sandbox::agent::{Agent, ProcessId, Stream};
use peerpods::sandbox::spec::{CommandSpec, ContainerSpec, Terminal};
use peerpods_podvm::SandboxId;
use tokio::task::JoinHandle;

/// What the container runs; `pause` in seconds. A container that was restarted would say so in its first line.
#[must_use]
pub fn script(pause: &str) -> String {
    format!("echo started; i=0; while :; do echo $i; i=$((i+1)); sleep {pause}; done")
}

/// The output of [`script`], judged piece by piece.
#[derive(Debug, Default)]
pub struct Lines {
    rest: Vec<u8>,
    next: Option<u64>,
}

impl Lines {
    /// Takes the next piece, which may end anywhere; answers how many numbers were seen so far.
    ///
    /// # Errors
    /// The first line that is not the one to come.
    pub fn take(&mut self, piece: &[u8]) -> Result<u64, String> {
        self.rest.extend_from_slice(piece);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.rest[..end]).into_owned();
            self.rest.drain(..=end);
            let expected = self.next.map_or_else(|| "started".to_owned(), |next| next.to_string());
            if line != expected {
                return Err(format!("expected {expected:?}, got {line:?}"));
            }
            self.next = Some(self.next.map_or(0, |next| next + 1));
        }
        Ok(self.next.unwrap_or(0))
    }
}

#[derive(Default)]
struct Seen {
    count: AtomicU64,
    fault: Mutex<Option<String>>,
}

/// A counting container and its reader.
pub struct Counter {
    seen: Arc<Seen>,
    reader: JoinHandle<()>,
}

impl Counter {
    /// Makes the container of a started sandbox on the root file system `userland` and reads from it until dropped.
    ///
    /// # Panics
    /// When the agent refuses.
    pub async fn start(id: &str, socket: &Path, userland: &Path, pause: &str) -> Self {
        let id: SandboxId = id.parse().unwrap();
        let agent = Agent::connect(&id, socket).await.unwrap();
        agent.create_sandbox("counter").await.unwrap();
        let container = ContainerSpec {
            id: id.clone(),
            hostname: "counter".to_owned(),
            userland: userland.display().to_string(),
            command: CommandSpec {
                args: vec!["sh".to_owned(), "-c".to_owned(), script(pause)],
                env: Vec::new(),
                cwd: "/".to_owned(),
                terminal: Terminal::None,
            },
        };
        let process = agent.create_container(&container).await.unwrap();
        agent.start_container(&process).await.unwrap();
        let seen = Arc::<Seen>::default();
        let reader = tokio::spawn(read(agent, process, seen.clone()));
        Self { seen, reader }
    }

    /// How many numbers came, each exactly once and in order.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.seen.count.load(Ordering::SeqCst)
    }

    /// What was wrong with the stream.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.seen.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `more` further numbers came.
    ///
    /// # Errors
    /// What was wrong, or that none came for a minute.
    pub async fn goes_on(&self, more: u64) -> Result<(), String> {
        let target = self.count() + more;
        let arrived = async {
            while self.count() < target && self.fault().is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(60), arrived).await;
        match (self.fault(), in_time) {
            (Some(fault), _) => Err(fault),
            (None, Err(_)) => Err(format!("stands still at {}", self.count())),
            (None, Ok(())) => Ok(()),
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(agent: Agent, process: ProcessId, seen: Arc<Seen>) {
    let mut lines = Lines::default();
    let fault = loop {
        match agent.read(&process, Stream::Out).await {
            Ok(piece) if piece.is_empty() => break "the stream ended".to_owned(),
            Ok(piece) => match lines.take(&piece) {
                Ok(count) => seen.count.store(count, Ordering::SeqCst),
                Err(fault) => break fault,
            },
            Err(error) => break format!("the connection ended: {error}"),
        }
    };
    *seen.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_sequence_passes() {
        let judge = |pieces: &[&str]| {
            let mut lines = Lines::default();
            pieces.iter().try_fold(0, |_, piece| lines.take(piece.as_bytes()))
        };
        assert_eq!(judge(&["star", "ted\n0\n1\n", "2", "\n"]), Ok(3));
        for broken in ["started\n0\n2\n", "started\n0\n0\n", "started\n0\nstarted\n", "0\n", "started\n1\n"] {
            assert!(judge(&[broken]).is_err(), "{broken:?}");
        }
    }
}
