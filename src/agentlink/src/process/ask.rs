//! One control connection, from the daemon's side.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::control::{Answer, Ask, Body, Lines, to_line};

/// Why there is no answer.
pub(super) enum Failure {
    Io(io::Error),
    /// There is one, and it cannot be read.
    Answer(String),
    /// The link does not speak this version, which the request needs.
    Unsupported(u32),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A connection to a link process. Dropping it hangs up, which stops a dialling it asked for.
pub(super) struct Conversation {
    /// The process that listens, by the kernel's word; 0 when it is in a pid namespace that is not seen from here.
    pub(super) peer: i32,
    lines: Lines<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Conversation {
    /// Connects, and makes sure that the other side runs as us: it will be told keys.
    pub(super) async fn begin(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let peer = stream.peer_cred()?;
        if peer.uid() != nix::unistd::geteuid().as_raw() {
            let text = format!("the control socket belongs to uid {}", peer.uid());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let pid = peer.pid().unwrap_or(0);
        let (read, write) = stream.into_split();
        Ok(Self { peer: pid, lines: Lines::new(read), write })
    }

    /// Waits until the other side hangs up.
    pub(super) async fn hung_up(&mut self) -> io::Result<()> {
        self.lines.hung_up().await
    }

    pub(super) async fn ask(&mut self, ask: &Ask<'_>, patience: Duration) -> Result<Body, Failure> {
        let line = to_line(ask)?;
        let exchange = async {
            self.write.write_all(&line).await?;
            self.lines.next().await
        };
        let answered =
            timeout(patience, exchange).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        let line = answered?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let answer: Answer = serde_json::from_slice(&line)
            .map_err(|_| Failure::Answer(String::from_utf8_lossy(&line).chars().take(200).collect()))?;
        match answer.body {
            Body::Unsupported { .. } => Err(Failure::Unsupported(ask.v)),
            _ if answer.v < ask.v => Err(Failure::Unsupported(ask.v)),
            _ if answer.v > ask.v => Err(Failure::Answer(format!("version {}", answer.v))),
            body => Ok(body),
        }
    }
}
