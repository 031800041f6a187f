//! The socket and the life of the agent: serves until the sandbox is destroyed or the process is told to end.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::stat::{Mode, umask};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use ttrpc::r#async::Server;
use ttrpc::r#async::transport::Listener;

use crate::config::Config;
use crate::rpc;
use crate::sandbox::Sandbox;

/// Why the agent could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Somebody answers on the socket.
    #[error("{path:?} is served by another process")]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// There is something else than a socket.
    #[error("{path:?} exists and is no socket")]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket could not be made.
    #[error("cannot listen on {path:?}")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The ttrpc server failed.
    #[error("the ttrpc server failed")]
    Serve(#[from] ttrpc::Error),
    /// Signals could not be awaited.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

/// Serves one sandbox on the socket, until it is destroyed or SIGTERM or SIGINT comes; both end the containers first.
///
/// # Errors
/// [`ServerError`].
pub async fn serve(config: Config) -> Result<(), ServerError> {
    let path = config.socket.as_path();
    let sandbox = Arc::new(Sandbox::new(config.userland));
    let listener = Listener::from(bind(path)?);
    let mut server = Server::new().add_listener(listener).register_service(rpc::services(&sandbox));
    server.start().await?;
    tracing::info!(?path, "serving");

    let mut terminate = signal(SignalKind::terminate()).map_err(ServerError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServerError::Signals)?;
    tokio::select! {
        () = sandbox.over() => tracing::info!("the sandbox was destroyed"),
        _ = terminate.recv() => sandbox.destroy().await,
        _ = interrupt.recv() => sandbox.destroy().await,
    }
    // Waits for the calls under way, so that the one that ended the sandbox is answered.
    server.shutdown().await?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(?path, %error, "socket not removed")
        }
        _ => {}
    }
    Ok(())
}

/// A socket for root alone, in place of a stale one.
fn bind(path: &Path) -> Result<UnixListener, ServerError> {
    let fail = |source| ServerError::Listen { path: path.to_owned(), source };
    remove_stale(path)?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(fail)?;
    }
    // From the start, and not by a change afterwards; nothing else makes files at this time.
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = StdUnixListener::bind(path);
    umask(before);
    let listener = bound.map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    UnixListener::from_std(listener).map_err(fail)
}

fn remove_stale(path: &Path) -> Result<(), ServerError> {
    let fail = |source| ServerError::Listen { path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
    };
    if !found.file_type().is_socket() {
        return Err(ServerError::NoSocket { path: path.to_owned() });
    }
    if StdUnixStream::connect(path).is_ok() {
        return Err(ServerError::Taken { path: path.to_owned() });
    }
    fs::remove_file(path).map_err(fail)
}
