//! QEMU's control protocol, as much as we need: one command at a time, events skipped, every line bounded, every wait timed.
//!
//! Source of the form: QEMU's `docs/interop/qmp-spec.rst`.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The longest line we take. What we ask for is answered in a few hundred bytes.
const MAX_LINE: u64 = 64 * 1024;
/// How many events may come before an answer.
const MAX_EVENTS: usize = 1000;

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QmpError {
    #[error("the socket broke")]
    Io(#[from] std::io::Error),
    #[error("QEMU closed the connection")]
    Closed,
    #[error("QEMU sent a line of more than {MAX_LINE} bytes")]
    LineTooLong,
    #[error("QEMU sent something that is no message")]
    NoMessage(#[from] serde_json::Error),
    #[error("QEMU sent no greeting")]
    NoGreeting,
    #[error("QEMU sends events only")]
    NoAnswer,
    #[error("QEMU refuses {command}: {reason}")]
    Refused { command: &'static str, reason: String },
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    id: Option<u64>,
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    class: String,
    desc: String,
}

/// A connection on which commands may be given. QEMU serves one connection at a time; others wait.
pub(crate) struct Qmp<S> {
    stream: BufReader<S>,
    next_id: u64,
    patience: Duration,
}

impl Qmp<UnixStream> {
    /// Connects to the socket at `path`. `patience` is how long the handshake and each command may take.
    pub(crate) async fn connect(path: &Path, patience: Duration) -> Result<Self, QmpError> {
        let stream = timeout(patience, UnixStream::connect(path)).await;
        Self::handshake(stream.map_err(|_| QmpError::TimedOut(patience))??, patience).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Qmp<S> {
    pub(crate) async fn handshake(stream: S, patience: Duration) -> Result<Self, QmpError> {
        let mut qmp = Self { stream: BufReader::new(stream), next_id: 0, patience };
        let greeting = timeout(patience, qmp.message()).await.map_err(|_| QmpError::TimedOut(patience))??;
        if greeting.greeting.is_none() {
            return Err(QmpError::NoGreeting);
        }
        qmp.command("qmp_capabilities").await?;
        Ok(qmp)
    }

    /// Gives a command without arguments and waits for its answer. After an error the connection is of no more use.
    pub(crate) async fn command(&mut self, command: &'static str) -> Result<Value, QmpError> {
        let patience = self.patience;
        timeout(patience, self.exchange(command)).await.map_err(|_| QmpError::TimedOut(patience))?
    }

    async fn exchange(&mut self, command: &'static str) -> Result<Value, QmpError> {
        self.next_id += 1;
        let id = self.next_id;
        let line = format!("{}\n", json!({ "execute": command, "id": id }));
        self.stream.write_all(line.as_bytes()).await?;
        self.stream.flush().await?;
        for _ in 0..MAX_EVENTS {
            let message = self.message().await?;
            if let Some(Refusal { class, desc }) = message.error {
                return Err(QmpError::Refused { command, reason: format!("{desc} ({class})") });
            }
            if let (Some(answer), Some(answered)) = (message.answer, message.id)
                && answered == id
            {
                return Ok(answer);
            }
        }
        Err(QmpError::NoAnswer)
    }

    async fn message(&mut self) -> Result<Message, QmpError> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        match line.last() {
            None => Err(QmpError::Closed),
            Some(b'\n') => Ok(serde_json::from_slice(&line)?),
            Some(_) if read as u64 == MAX_LINE => Err(QmpError::LineTooLong),
            Some(_) => Err(QmpError::Closed),
        }
    }
}

/// Whether a guest in this run state (`query-status`) runs or will by itself; the others need somebody who continues or resets it.
pub(crate) fn lives(answer: &Value) -> bool {
    let stopped = ["guest-panicked", "internal-error", "io-error", "shutdown", "watchdog"];
    answer.get("status").and_then(Value::as_str).is_none_or(|status| !stopped.contains(&status))
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n";
    const SOON: Duration = Duration::from_millis(300);

    /// A QEMU that answers the handshake and then says `rest`, whatever it is asked.
    async fn client(rest: String) -> (Qmp<DuplexStream>, DuplexStream) {
        let (near, mut far) = duplex(1 << 20);
        let script = format!("{GREETING}{{\"return\": {{}}, \"id\": 1}}\r\n{rest}");
        far.write_all(script.as_bytes()).await.unwrap();
        (Qmp::handshake(near, SOON).await.unwrap(), far)
    }

    #[tokio::test]
    async fn events_and_strangers_answers_are_skipped() {
        let (mut qmp, _far) = client(
            "{\"event\": \"RESUME\", \"timestamp\": {}}\n{\"return\": 1, \"id\": 99}\n{\"return\": {\"status\": \"running\"}, \"id\": 2}\n"
                .to_owned(),
        )
        .await;
        assert!(lives(&qmp.command("query-status").await.unwrap()));
    }

    #[tokio::test]
    async fn a_refusal_a_silence_and_a_flood_are_errors() {
        let refusal = "{\"id\": 2, \"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n".to_owned();
        let error = client(refusal).await.0.command("quit").await.unwrap_err();
        assert_eq!(error.to_string(), "QEMU refuses quit: no (GenericError)");
        let (mut silent, _far) = client(String::new()).await;
        assert!(matches!(silent.command("quit").await, Err(QmpError::TimedOut(_))));
        let (mut flooding, _far) = client("x".repeat(100_000)).await;
        assert!(matches!(flooding.command("quit").await, Err(QmpError::LineTooLong)));
        let (mut closing, far) = client("{\"ret".to_owned()).await;
        drop(far);
        assert!(matches!(closing.command("quit").await, Err(QmpError::Closed | QmpError::Io(_))));
    }

    #[tokio::test]
    async fn who_does_not_greet_is_no_qemu() {
        let (near, mut far) = duplex(1024);
        far.write_all(b"{\"return\": {}}\n").await.unwrap();
        assert!(matches!(Qmp::handshake(near, SOON).await, Err(QmpError::NoGreeting)));
    }

    #[test]
    fn a_guest_that_broke_does_not_live() {
        assert!(lives(&json!({"status": "prelaunch"})) && lives(&json!({})));
        assert!(!lives(&json!({"status": "internal-error", "running": false})));
    }
}
