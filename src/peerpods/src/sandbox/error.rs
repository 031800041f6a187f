//! What can go wrong for a client of the node service, and what to try.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use peerpods_podvm::SandboxId;

/// Why a `sandbox` command failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Nobody listens.
    #[error("the node service does not answer on {}: is `peerpods hypervisor` running, and is this its socket?", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The node service answered with an error.
    #[error("{call} of sandbox {id} failed: {reason}")]
    Refused {
        /// The call, as the shim names it.
        call: &'static str,
        /// The sandbox.
        id: SandboxId,
        /// What the service said.
        reason: String,
    },
    /// The list of sandboxes could not be had.
    #[error("the node service on {} did not list its sandboxes: {reason}", socket.display())]
    List {
        /// The socket.
        socket: PathBuf,
        /// What the service said.
        reason: String,
    },
    /// There is no such sandbox.
    #[error("there is no sandbox {id}; `peerpods sandbox list` shows those there are")]
    Unknown {
        /// The sandbox asked for.
        id: SandboxId,
    },
    /// The sandbox has no running VM.
    #[error("sandbox {id} is {state}, not running; {hint}")]
    NotRunning {
        /// The sandbox.
        id: SandboxId,
        /// Where it is in its life.
        state: String,
        /// What to try.
        hint: String,
    },
    /// The agent did not do what it was asked.
    #[error("the agent of sandbox {id} failed in {call}: {reason}")]
    Agent {
        /// The sandbox.
        id: SandboxId,
        /// The call.
        call: &'static str,
        /// What the agent, or the link to it, said.
        reason: String,
    },
    /// The agent socket does not take a connection.
    #[error("cannot connect to the agent of sandbox {id} on {}: did its VM end?", socket.display())]
    AgentSocket {
        /// The sandbox.
        id: SandboxId,
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The pod network namespace could not be made or removed.
    #[error("cannot {verb} network namespace {name} of sandbox {id}")]
    Netns {
        /// `make` or `remove`.
        verb: &'static str,
        /// Its name below `/run/netns`.
        name: String,
        /// The sandbox.
        id: SandboxId,
        /// What failed.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No addresses for a pod network namespace.
    #[error("no addresses for the pod network of sandbox {id}: {reason}")]
    Addresses {
        /// The sandbox.
        id: SandboxId,
        /// Why, and what to try.
        reason: String,
    },
    /// What this client remembers could not be read or written.
    #[error("cannot keep what was made, in {}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: std::io::Error,
    },
    /// A file named on the command line could not be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The sandbox did not go away in time.
    #[error(
        "sandbox {id} is still {state} after {after:?}; the node service goes on removing it, `peerpods sandbox stop {id}` waits again"
    )]
    StillThere {
        /// The sandbox.
        id: SandboxId,
        /// Where it is in its life.
        state: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The user did not want to wait for the end.
    #[error("interrupted by signal {signal}")]
    Interrupted {
        /// The signal's number.
        signal: i32,
    },
    /// Our own stdout, stderr or terminal failed.
    #[error("cannot use this command's own {stream}")]
    Own {
        /// Which stream.
        stream: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}
