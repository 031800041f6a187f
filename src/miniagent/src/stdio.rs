//! The agent's ends of a process's streams: pipes, or a terminal.
//!
//! A read that yields no bytes means the end of the stream, and one after that fails. The kata-agent does the former since 3.27 and
//! did the latter before, and shims go by their own version: the Go shim before 3.27 takes only an error for the end and else asks
//! again at once, for ever; runtime-rs loses output that it has not written out yet when an error comes at once.
//!
//! A stream also ends a short while after the process did, even where a child of it still holds the other end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::AsyncWriteExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, watch};

/// How long output is awaited after the process has ended.
const DRAIN: Duration = Duration::from_millis(500);

/// The most bytes one read answers, whatever is asked for: a ttrpc message holds 4 MiB.
const MAX_READ: usize = 1 << 20;

/// What a read answers when the request names no length.
const DEFAULT_READ: usize = 32 << 10;

/// The character that ends the input of a terminal in its usual mode.
const END_OF_INPUT: u8 = 4;

/// Why a stream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// Pipes or terminal could not be made.
    #[error("cannot make {what}")]
    Make {
        /// What.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The stream broke.
    #[error("cannot {what}")]
    Broken {
        /// "read" or "write".
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Standard input was closed by the caller, or the process has ended.
    #[error("standard input is closed")]
    Closed,
    /// A window size for a process without a terminal.
    #[error("the process has no terminal")]
    NoTerminal,
    /// A read after the end was told.
    #[error("eof")]
    End,
}

impl StdioError {
    /// Whether the caller asked for something that cannot be.
    #[must_use]
    pub fn is_request_fault(&self) -> bool {
        matches!(self, Self::Closed | Self::NoTerminal)
    }
}

/// Which output of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output; on a terminal everything.
    Stdout,
    /// Standard error; on a terminal nothing.
    Stderr,
}

/// Of which outputs the reader was told that they ended.
#[derive(Debug, Default)]
pub struct EndsTold {
    stdout: AtomicBool,
    stderr: AtomicBool,
}

impl EndsTold {
    /// Tells the end of an output: the first time by success.
    ///
    /// # Errors
    /// [`StdioError::End`] from the second time on.
    pub fn tell(&self, output: Output) -> Result<(), StdioError> {
        let told = match output {
            Output::Stdout => &self.stdout,
            Output::Stderr => &self.stderr,
        };
        if told.swap(true, Ordering::Relaxed) { Err(StdioError::End) } else { Ok(()) }
    }
}

/// The ends the process gets.
#[derive(Debug)]
pub struct ProcessEnds {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// The agent's ends.
#[derive(Debug)]
pub enum Stdio {
    /// A terminal.
    Terminal(Terminal),
    /// Three pipes.
    Pipes(Pipes),
}

/// The master side of a terminal.
#[derive(Debug)]
pub struct Terminal {
    master: AsyncFd<File>,
    /// Held while writing, so that two writes do not mix.
    writing: Mutex<()>,
}

/// Pipes for all three streams.
#[derive(Debug)]
pub struct Pipes {
    stdin: Mutex<Option<pipe::Sender>>,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

impl Stdio {
    /// A terminal of the given height and width.
    ///
    /// # Errors
    /// [`StdioError::Make`]; the VM needs devpts at /dev/pts.
    pub fn terminal(size: Option<(u16, u16)>) -> Result<(Self, ProcessEnds), StdioError> {
        let make = |source: io::Error| StdioError::Make { what: "a terminal", source };
        let pair = nix::pty::openpty(None, None).map_err(|e| make(e.into()))?;
        for end in [&pair.master, &pair.slave] {
            fcntl(end, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).map_err(|e| make(e.into()))?;
        }
        fcntl(&pair.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| make(e.into()))?;
        #[expect(unsafe_code, reason = "tokio leaves it to the caller that the descriptor stays open")]
        // SAFETY: a `File` owns its descriptor, and nothing replaces or closes it while `AsyncFd` owns the `File`.
        let registered = unsafe { AsyncFd::register(File::from(pair.master)) };
        let master = registered.map_err(|error| make(error.into()))?;
        let terminal = Terminal { master, writing: Mutex::new(()) };
        if let Some((rows, columns)) = size {
            terminal.resize(rows, columns)?;
        }
        let copy = || pair.slave.try_clone().map_err(make);
        let ends = ProcessEnds { stdin: copy()?, stdout: copy()?, stderr: copy()? };
        Ok((Self::Terminal(terminal), ends))
    }

    /// Three pipes.
    ///
    /// # Errors
    /// [`StdioError::Make`].
    pub fn pipes() -> Result<(Self, ProcessEnds), StdioError> {
        let make = |source| StdioError::Make { what: "pipes", source };
        let (stdin, to_stdin) = io::pipe().map_err(make)?;
        let (from_stdout, stdout) = io::pipe().map_err(make)?;
        let (from_stderr, stderr) = io::pipe().map_err(make)?;
        let pipes = Pipes {
            stdin: Mutex::new(Some(pipe::Sender::from_owned_fd(to_stdin.into()).map_err(make)?)),
            stdout: pipe::Receiver::from_owned_fd(from_stdout.into()).map_err(make)?,
            stderr: pipe::Receiver::from_owned_fd(from_stderr.into()).map_err(make)?,
        };
        let ends = ProcessEnds { stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into() };
        Ok((Self::Pipes(pipes), ends))
    }

    /// Answers at most `len` bytes as soon as there are any, none at the end of the stream. `exit` is the process's.
    ///
    /// # Errors
    /// [`StdioError::Broken`].
    ///
    /// # Cancel safety
    /// Nothing is lost when dropped.
    pub async fn read(
        &self,
        output: Output,
        len: usize,
        exit: watch::Receiver<Option<i32>>,
    ) -> Result<Vec<u8>, StdioError> {
        let len = if len == 0 { DEFAULT_READ } else { len.min(MAX_READ) };
        tokio::select! {
            biased;
            read = self.read_some(output, len) => read,
            () = ended(exit) => match tokio::time::timeout(DRAIN, self.read_some(output, len)).await {
                Ok(read) => read,
                Err(_) => Ok(Vec::new()),
            },
        }
    }

    async fn read_some(&self, output: Output, len: usize) -> Result<Vec<u8>, StdioError> {
        let broken = |source| StdioError::Broken { what: "read", source };
        let mut buffer = vec![0; len];
        let read = match (self, output) {
            (Self::Terminal(_), Output::Stderr) => Ok(0),
            (Self::Terminal(terminal), Output::Stdout) => terminal.read(&mut buffer).await,
            (Self::Pipes(pipes), Output::Stdout) => read_pipe(&pipes.stdout, &mut buffer).await,
            (Self::Pipes(pipes), Output::Stderr) => read_pipe(&pipes.stderr, &mut buffer).await,
        };
        buffer.truncate(read.map_err(broken)?);
        Ok(buffer)
    }

    /// Writes all of `data` to the process's input. Ends with [`StdioError::Closed`] when the process does.
    ///
    /// # Errors
    /// [`StdioError`].
    pub async fn write(&self, data: &[u8], exit: watch::Receiver<Option<i32>>) -> Result<(), StdioError> {
        tokio::select! {
            biased;
            written = self.write_all(data) => written,
            () = ended(exit) => Err(StdioError::Closed),
        }
    }

    async fn write_all(&self, data: &[u8]) -> Result<(), StdioError> {
        let written = match self {
            Self::Terminal(terminal) => terminal.write(data).await,
            Self::Pipes(pipes) => match pipes.stdin.lock().await.as_mut() {
                Some(stdin) => stdin.write_all(data).await,
                None => return Err(StdioError::Closed),
            },
        };
        written.map_err(|source| match source.kind() {
            io::ErrorKind::BrokenPipe => StdioError::Closed,
            _ => StdioError::Broken { what: "write", source },
        })
    }

    /// Ends the process's input: closes the pipe, or types the end-of-input character on a terminal, which is one stream for both
    /// directions and cannot be closed by half. Twice is fine.
    pub async fn close_stdin(&self) {
        match self {
            Self::Pipes(pipes) => drop(pipes.stdin.lock().await.take()),
            // A terminal nobody listens to any more needs no end.
            Self::Terminal(terminal) => drop(terminal.write(&[END_OF_INPUT]).await),
        }
    }

    /// Sets the height and width of the terminal.
    ///
    /// # Errors
    /// [`StdioError::NoTerminal`] where there is none.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), StdioError> {
        match self {
            Self::Terminal(terminal) => terminal.resize(rows, columns),
            Self::Pipes(_) => Err(StdioError::NoTerminal),
        }
    }
}

impl Terminal {
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.master.readable().await?;
            match ready.try_io(|master| master.get_ref().read(buffer)) {
                // The kernel's way to say that nobody has the other side open any more.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::EIO as i32) => return Ok(0),
                Ok(read) => return read,
                Err(_would_block) => {}
            }
        }
    }

    async fn write(&self, mut data: &[u8]) -> io::Result<()> {
        let _writing = self.writing.lock().await;
        while !data.is_empty() {
            let mut ready = self.master.writable().await?;
            if let Ok(written) = ready.try_io(|master| master.get_ref().write(data)) {
                data = data.get(written?..).unwrap_or_default();
            }
        }
        Ok(())
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<(), StdioError> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.master.get_ref().as_fd(), size).map_err(|error| StdioError::Broken {
            what: "set the size of the terminal",
            source: error.into(),
        })
    }
}

async fn read_pipe(pipe: &pipe::Receiver, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        pipe.readable().await?;
        match pipe.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

async fn ended(mut exit: watch::Receiver<Option<i32>>) {
    // An error means that nobody watches the process any more, which happens only after its end.
    let _ = exit.wait_for(Option::is_some).await;
}
