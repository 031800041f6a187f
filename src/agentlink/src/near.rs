//! The worker's end: the process that owns one sandbox's connections from the shim.
//!
//! ```text
//! shim ─▶ agent.ttrpc ─ first byte ─ wait for `connect` ─▶ dial ─▶ bytes both ways, until either side ends
//! daemon ─▶ link.sock ─ connect | status | close              (hanging up is nothing: the shim's connections stay)
//! ```
//!
//! It reads nothing of what it forwards. A connection that never says anything (runtime-rs' log forwarder) is held open and never
//! dials. Keys come over the control socket and stay in memory. A second `connect` for another guest applies to connections made from
//! then on; those under way stay with the guest they have.
//!
//! The process ends by `close`, by SIGTERM, or when its directory is gone and no shim is connected. It never ends because the daemon is
//! away, however long: only the daemon's journal knows whether a sandbox still is one.

mod commands;
pub mod detach;
mod journal;
mod peers;
mod shim;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use peerpods_podvm::SandboxId;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use commands::State;
pub use journal::Journal;

/// The control socket's name, beside the agent socket.
pub const CONTROL_SOCKET: &str = "link.sock";
/// The log's name, beside the agent socket. The process holds a lock on it while it lives.
pub const LOG_FILE: &str = "link.log";
/// The longest path a unix socket can have, in bytes.
const MAX_SOCKET_PATH: usize = 107;
/// How often the process looks whether its directory is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a link that ends takes leave of its guest.
const LEAVE: Duration = Duration::from_millis(200);

/// Why the link could not begin.
#[derive(Debug, thiserror::Error)]
pub enum NearError {
    /// The socket's path cannot be used by a shim or by the kernel.
    #[error("the agent socket {} cannot be used: {reason}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another process holds this sandbox's link.
    #[error("another link process runs for this sandbox ({} is locked)", .0.display())]
    AlreadyRunning(PathBuf),
    /// A file or socket could not be made.
    #[error("cannot {doing} {}", path.display())]
    Place {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Where one link's files are.
#[derive(Debug, Clone)]
pub struct Places {
    /// The directory of all of them.
    pub dir: PathBuf,
    /// The shim's socket.
    pub agent: PathBuf,
    /// The daemon's socket.
    pub control: PathBuf,
    /// The log.
    pub log: PathBuf,
}

impl Places {
    /// Beside the agent socket.
    ///
    /// # Errors
    /// [`NearError::Path`] when `agent_socket` is not absolute, is too long for a socket, or holds a ':' (the shims cut it there).
    pub fn beside(agent_socket: &Path) -> Result<Self, NearError> {
        let unusable = |reason| NearError::Path { path: agent_socket.to_owned(), reason };
        let dir = agent_socket.parent().filter(|dir| dir.is_absolute());
        let dir = dir.ok_or_else(|| unusable("it is not absolute"))?;
        let places = Self {
            dir: dir.to_owned(),
            agent: agent_socket.to_owned(),
            control: dir.join(CONTROL_SOCKET),
            log: dir.join(LOG_FILE),
        };
        if [&places.agent, &places.control].iter().any(|path| path.as_os_str().len() > MAX_SOCKET_PATH) {
            return Err(unusable("it or the control socket beside it is longer than 107 bytes"));
        }
        if agent_socket.as_os_str().as_encoded_bytes().contains(&b':') {
            return Err(unusable("a shim cuts it at the ':'"));
        }
        Ok(places)
    }
}

/// A link with its sockets bound: from here on the shim can connect.
pub struct Near {
    state: Arc<State>,
    places: Places,
    agent: UnixListener,
    control: UnixListener,
    traces: Traces,
}

impl Near {
    /// Binds both sockets, replacing those of a link that is no more. Must be called inside a tokio runtime, after
    /// [`detach::settle`], whose umask keeps the sockets private (0600).
    ///
    /// # Errors
    /// [`NearError`] names the path.
    pub fn bind(sandbox: &SandboxId, places: Places) -> Result<(Self, Journal), NearError> {
        // Nobody else passes the lock, so whatever lies there is stale.
        let (journal, lock) = Journal::open_locked(&places.log)?;
        let control = bind_socket(&places.control)?;
        let agent = bind_socket(&places.agent)?;
        let traces = Traces::of(&places, lock)?;
        let state = Arc::new(State::new(sandbox.clone()));
        Ok((Self { state, places, agent, control, traces }, journal))
    }

    /// Serves until asked to close, by the control socket or SIGTERM, or until the directory is gone.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub async fn run(self) -> io::Result<()> {
        let mut terminated = signal(SignalKind::terminate())?;
        tracing::info!(sandbox = %self.state.sandbox, version = env!("CARGO_PKG_VERSION"), "listening");
        let shims = TaskTracker::new();
        tokio::select! {
            () = accept_all(&self.agent, |stream| shims.track_future(shim::serve(self.state.clone(), stream))) => {}
            () = accept_all(&self.control, |stream| commands::serve(self.state.clone(), stream)) => {}
            () = self.state.closing.cancelled() => tracing::info!("asked to close"),
            _ = terminated.recv() => tracing::info!("terminated"),
            () = self.traces.forsaken(&self.places, &self.state.shims) => return Ok(()),
        }
        for path in [&self.places.agent, &self.places.control] {
            let _ = fs::remove_file(path);
        }
        // Sessions take leave of the guest, which would wait for them else.
        self.state.closing.cancel();
        shims.close();
        let _ = timeout(LEAVE, shims.wait()).await;
        Ok(())
    }
}

/// Every connection is a task of its own. Never ends: errors of accepting are waited out.
async fn accept_all<F>(listener: &UnixListener, serve: impl Fn(UnixStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection; trying again");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// What a link has left in its directory, known by inode numbers: none is used anew while the link holds it.
struct Traces {
    sockets: [u64; 2],
    /// The log, which is also the lock that says "this sandbox has a link".
    lock: File,
}

impl Traces {
    fn of(places: &Places, lock: File) -> Result<Self, NearError> {
        let inode = |path: &PathBuf| {
            let failed = |source| NearError::Place { doing: "look at", path: path.clone(), source };
            fs::symlink_metadata(path).map(|meta| meta.ino()).map_err(failed)
        };
        Ok(Self { sockets: [inode(&places.agent)?, inode(&places.control)?], lock })
    }

    /// Ends when no name leads to this link any more (its directory is gone, or another one by now) and no shim is connected: nobody
    /// can reach it. A log or a socket that somebody removed is not enough, and connections that stand are served to their end.
    async fn forsaken(&self, places: &Places, shims: &AtomicUsize) {
        let missing = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
        let vanished = || fs::symlink_metadata(&places.dir).is_err_and(missing) || !self.some_left(places);
        while !vanished() || shims.load(Ordering::Relaxed) > 0 {
            sleep(LOOK_EVERY).await;
        }
    }

    fn some_left(&self, places: &Places) -> bool {
        let ours = |(path, inode): (&PathBuf, u64)| {
            fs::symlink_metadata(path)
                .map_or_else(|e| e.kind() != io::ErrorKind::NotFound, |m| m.ino() == inode)
        };
        [&places.agent, &places.control].into_iter().zip(self.sockets).any(ours)
            || self.lock.metadata().map_or(true, |meta| meta.nlink() > 0)
    }
}

fn bind_socket(path: &Path) -> Result<UnixListener, NearError> {
    let failed = |doing| move |source| NearError::Place { doing, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => fs::remove_file(path).map_err(failed("replace"))?,
        Ok(_) => return Err(failed("replace")(io::Error::other("it is no socket"))),
        Err(_) => {}
    }
    UnixListener::bind(path).map_err(failed("listen on"))
}
