//! This command's own stdin, terminal and signals.

use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::error::SandboxError;
use super::process::Event;
use super::spec::Size;

/// Bytes read at once.
const CHUNK: usize = 32 * 1024;

/// Reads stdin on a thread of its own, which ends with the process: a blocking read cannot be withdrawn.
#[must_use]
pub fn stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut buffer = vec![0_u8; CHUNK];
        while let Ok(len @ 1..) = input.read(&mut buffer) {
            let piece = buffer.get(..len).unwrap_or_default().to_vec();
            if sender.blocking_send(piece).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Signals and terminal sizes of this process, from the moment of the call.
///
/// # Errors
/// When handlers cannot be installed.
pub fn events() -> Result<mpsc::Receiver<Event>, SandboxError> {
    let handler = |kind| signal(kind).map_err(|source| SandboxError::Own { stream: "signals", source });
    let (sender, receiver) = mpsc::channel(16);
    let asking = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
    for kind in asking {
        let number = kind.as_raw_value();
        relay(handler(kind)?, sender.clone(), move || Some(Event::Signal(number)));
    }
    relay(handler(SignalKind::window_change())?, sender, || size().map(Event::Resized));
    Ok(receiver)
}

fn relay(
    mut signal: Signal,
    sender: mpsc::Sender<Event>,
    event: impl Fn() -> Option<Event> + Send + 'static,
) {
    tokio::spawn(async move {
        while signal.recv().await.is_some() {
            let Some(event) = event() else { continue };
            if sender.send(event).await.is_err() {
                return;
            }
        }
    });
}

/// The size of the terminal on stdin, if there is one.
#[must_use]
pub fn size() -> Option<Size> {
    let window = rustix::termios::tcgetwinsize(std::io::stdin()).ok()?;
    (window.ws_row > 0).then_some(Size { rows: window.ws_row, columns: window.ws_col })
}

/// The terminal on stdin in raw mode; put back when dropped.
#[derive(Debug)]
pub struct RawMode(Termios);

impl RawMode {
    /// Enters raw mode; `None` when stdin is no terminal.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter() -> Result<Option<Self>, SandboxError> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let failed = |errno: nix::Error| SandboxError::Own { stream: "terminal", source: errno.into() };
        let before = tcgetattr(stdin.as_fd()).map_err(failed)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin.as_fd(), SetArg::TCSADRAIN, &raw).map_err(failed)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Err(errno) = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSADRAIN, &self.0) {
            tracing::warn!(%errno, "the terminal could not be put back; `reset` mends it");
        }
    }
}
