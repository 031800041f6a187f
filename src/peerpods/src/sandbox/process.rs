//! A running process and this command's own streams joined: output out, input in, signals and terminal sizes across.

use std::convert::Infallible;
use std::time::Duration;

use nix::libc::SIGKILL;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::agent::{Agent, ProcessId, Stream};
use super::error::SandboxError;
use super::spec::{Size, Terminal};
use super::terminal::RawMode;

/// How long a process may take to heed a signal before it is killed, and again before it is given up.
pub const GRACE: Duration = Duration::from_secs(5);

/// How long delivering a signal may take; a broken link must not make a second Ctrl-C wait.
const DELIVERY: Duration = Duration::from_secs(2);

/// Ctrl-D: the end of a terminal's input.
const END_OF_INPUT: u8 = 0x04;

/// What comes from the user while a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A signal to this command.
    Signal(i32),
    /// The terminal has another size.
    Resized(Size),
}

/// What a command with a terminal does to ours, if we have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnTerminal {
    /// Put into raw mode while the command runs, and only then: until the command runs, Ctrl-C must be a signal to us.
    Raw,
    /// Left alone.
    AsIs,
}

/// This command's own streams.
pub struct Streams {
    /// What becomes of our terminal.
    pub terminal: OwnTerminal,
    /// Input in pieces; closed at its end. `None`: the process gets an empty one.
    pub stdin: Option<mpsc::Receiver<Vec<u8>>>,
    /// Where standard output goes.
    pub stdout: Box<dyn AsyncWrite + Send + Unpin>,
    /// Where standard error goes.
    pub stderr: Box<dyn AsyncWrite + Send + Unpin>,
}

/// Joins a started process and the streams until it ends; answers its status. A signal is passed on; when a second one follows, or
/// the process does not end within [`GRACE`], it is killed; when it survives even that, it is given up.
///
/// # Errors
/// When the connection to the agent ends, our own streams fail, or the process was given up.
pub async fn attend(
    agent: &Agent,
    process: &ProcessId,
    terminal: Terminal,
    streams: Streams,
    events: &mut mpsc::Receiver<Event>,
) -> Result<i32, SandboxError> {
    let _raw = match streams.terminal {
        OwnTerminal::Raw => RawMode::enter()?,
        OwnTerminal::AsIs => None,
    };
    if let Terminal::Tty(Some(size)) = terminal {
        // The kata-agent does not look at the size in a process's specification.
        resize(agent, process, size).await;
    }
    let joined = join(agent, process, terminal, streams);
    tokio::pin!(joined);
    let mut insistence = Insistence::default();
    loop {
        tokio::select! {
            status = &mut joined => return status,
            Some(event) = events.recv() => match event {
                Event::Resized(size) => resize(agent, process, size).await,
                Event::Signal(signal) => insistence.insist(agent, process, signal).await?,
            },
            signal = insistence.overdue() => insistence.insist(agent, process, signal).await?,
        }
    }
}

/// Tells a terminal's size. One that cannot be told is no reason to end a process.
async fn resize(agent: &Agent, process: &ProcessId, size: Size) {
    match timeout(DELIVERY, agent.resize(process, size)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(error = %error, "size not told"),
        Err(_) => tracing::debug!("the agent does not take sizes"),
    }
}

/// How often the user, or the clock, asked a process to end.
#[derive(Debug, Default)]
struct Insistence {
    asked: Vec<i32>,
    until: Option<Instant>,
}

impl Insistence {
    async fn insist(&mut self, agent: &Agent, process: &ProcessId, signal: i32) -> Result<(), SandboxError> {
        let first = self.asked.first().copied().unwrap_or(signal);
        self.until = Some(Instant::now() + GRACE);
        let sent = match self.asked.len() {
            0 => signal,
            1 => SIGKILL,
            _ => return Err(SandboxError::Interrupted { signal: first }),
        };
        self.asked.push(signal);
        // The process may have ended just now; then its status arrives in place of this error.
        match timeout(DELIVERY, agent.signal(process, sent)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %error, "signal not delivered"),
            Err(_) => tracing::warn!("the agent does not take signals"),
        }
        Ok(())
    }

    /// Ends when the grace is over; never, before anything was asked.
    async fn overdue(&self) -> i32 {
        match (self.until, self.asked.first()) {
            (Some(until), Some(signal)) => {
                sleep_until(until).await;
                *signal
            }
            _ => std::future::pending().await,
        }
    }
}

async fn join(
    agent: &Agent,
    process: &ProcessId,
    terminal: Terminal,
    streams: Streams,
) -> Result<i32, SandboxError> {
    let Streams { stdin, stdout, stderr, .. } = streams;
    let outputs = async {
        let out = copy(agent, process, Stream::Out, stdout);
        match terminal {
            // With a terminal everything comes by stdout, and stderr would steal from it.
            Terminal::Tty(_) => out.await?,
            Terminal::None => {
                tokio::try_join!(out, copy(agent, process, Stream::Err, stderr))?;
            }
        }
        // As shims do: first the whole output, then the status, because the agent drops both together.
        agent.wait(process).await
    };
    tokio::select! {
        status = outputs => status,
        never = feed(agent, process, terminal, stdin) => match never {},
    }
}

async fn copy(
    agent: &Agent,
    process: &ProcessId,
    stream: Stream,
    mut to: Box<dyn AsyncWrite + Send + Unpin>,
) -> Result<(), SandboxError> {
    let name = match stream {
        Stream::Out => "stdout",
        Stream::Err => "stderr",
    };
    let own = |source| SandboxError::Own { stream: name, source };
    loop {
        let data = agent.read(process, stream).await?;
        if data.is_empty() {
            return Ok(());
        }
        to.write_all(&data).await.map_err(own)?;
        to.flush().await.map_err(own)?;
    }
}

/// Passes input on until its end, then waits to be dropped. A process that takes no more input is no error: its end says all.
async fn feed(
    agent: &Agent,
    process: &ProcessId,
    terminal: Terminal,
    stdin: Option<mpsc::Receiver<Vec<u8>>>,
) -> Infallible {
    if let Some(mut stdin) = stdin {
        while let Some(data) = stdin.recv().await {
            if let Err(error) = agent.write(process, &data).await {
                tracing::debug!(error = %error, "input not taken");
                return std::future::pending().await;
            }
        }
    }
    let closed = match terminal {
        Terminal::None => agent.close_stdin(process).await,
        // Input and output of a terminal are one: what ends only the input is what a user would type.
        Terminal::Tty(_) => agent.write(process, &[END_OF_INPUT]).await,
    };
    if let Err(error) = closed {
        tracing::debug!(error = %error, "stdin not closed");
    }
    std::future::pending().await
}
