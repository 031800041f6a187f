//! The seam: what the daemon asks of a sandbox's link.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use peerpods_podvm::SandboxId;
use peerpods_podvm::token::{AdmissionToken, GuestKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// A sandbox's link, before its VM exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSpec {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Where the shim will look for the agent; the link's control socket `link.sock` lies beside it.
    pub agent_socket: PathBuf,
}

/// What the link proves itself with, and whom it trusts. PEM texts; prints nothing, and wipes the key when dropped.
#[derive(Clone, Serialize, Deserialize)]
pub struct LinkIdentity {
    /// The client certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The authority that signed the guest's certificate.
    pub authority: String,
}

impl fmt::Debug for LinkIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkIdentity(..)")
    }
}

impl Drop for LinkIdentity {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// Where the guest is, and how to know it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinkTarget {
    /// The VM's address and the agent port (15150).
    pub address: SocketAddr,
    /// The name in the guest's certificate: the VM's name.
    pub server_name: String,
    /// Keys and trust.
    pub identity: LinkIdentity,
    /// How the guest is known.
    #[serde(default, skip_serializing_if = "GuestTrust::is_authority")]
    pub guest: GuestTrust,
    /// How long to keep trying until the agent answers.
    pub deadline: Duration,
}

/// How a link knows the guest for the right one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestTrust {
    /// By a certificate with the VM's name, signed by [`LinkIdentity::authority`]: the stock form.
    #[default]
    Authority,
    /// By the token it was given at birth; after its first use by the key it showed then.
    Token(AdmissionToken),
    /// By the key it was admitted with.
    Key(GuestKey),
}

impl GuestTrust {
    fn is_authority(&self) -> bool {
        *self == Self::Authority
    }
}

/// A link that is open: what it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Whether it knows [`GuestTrust::Token`]; a link of an older program does not.
    pub admits_by_token: bool,
}

/// The agent answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Connected {
    /// The key the guest is known by from here on; none in the stock form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_key: Option<GuestKey>,
    /// Time from the call to the first TCP connection accepted by the guest.
    pub port_open_after: Duration,
    /// Time from the call to the agent's answer to `Health.Check`.
    pub agent_after: Duration,
    /// How many TCP connections were begun; they overlap.
    pub attempts: u32,
}

/// Why a link could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The link process could not be started.
    #[error("cannot start the link process {} of sandbox {sandbox}", program.display())]
    Start {
        /// The sandbox.
        sandbox: SandboxId,
        /// The program.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The host's systemd did not start the link's unit, and nothing else was allowed.
    #[error(
        "cannot start unit {unit} for the link of sandbox {sandbox}; look at `systemctl status {unit}` and `journalctl -u {unit}`, \
         or set link-placement to auto"
    )]
    Unit {
        /// The sandbox.
        sandbox: SandboxId,
        /// The unit.
        unit: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The link process does not answer on its control socket.
    #[error("the link process of sandbox {sandbox} does not answer")]
    Unreachable {
        /// The sandbox.
        sandbox: SandboxId,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The agent did not answer in time.
    #[error("the agent of sandbox {sandbox} at {address} did not answer within {after:?}: {last}")]
    Deadline {
        /// The sandbox.
        sandbox: SandboxId,
        /// Where it was looked for.
        address: SocketAddr,
        /// How long it was tried.
        after: Duration,
        /// How the last attempt ended, and what to check.
        last: String,
    },
    /// The guest proved to be someone else, or rejected us: trying again will not help.
    #[error("the guest of sandbox {sandbox} at {address} was not accepted: {reason}")]
    Untrusted {
        /// The sandbox.
        sandbox: SandboxId,
        /// Where it is.
        address: SocketAddr,
        /// What TLS said.
        reason: String,
    },
    /// The link process is of another version and does not know what was asked. What it does know goes on: do without.
    #[error("the link process of sandbox {sandbox} does not speak version {needed} of the control protocol")]
    Unsupported {
        /// The sandbox.
        sandbox: SandboxId,
        /// The version the request needed.
        needed: u32,
    },
    /// The link process answered something this version does not understand.
    #[error("the link process of sandbox {sandbox} answered {answer:?}")]
    Protocol {
        /// The sandbox.
        sandbox: SandboxId,
        /// What it said.
        answer: String,
    },
}

/// Who holds a sandbox's agent socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shims {
    /// Connections of the shim that are open now.
    pub connections: usize,
    /// Whether a process that connected lives.
    pub last: ShimProcess,
}

/// What is known of the processes that connected to the agent socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShimProcess {
    /// One of them lives.
    Lives,
    /// All that ever connected are gone.
    Gone,
    /// None has connected, or the link cannot tell: it is older than the question, or the shim is in another pid namespace.
    #[default]
    #[serde(other)]
    Unknown,
}

/// The near ends of this node's links.
#[async_trait]
pub trait Link: Send + Sync {
    /// Makes the agent socket at once: starts the sandbox's link process, or finds the one that runs. Connections are accepted from
    /// here on and wait for [`Link::connect`].
    ///
    /// # Errors
    /// When the process cannot be started; nothing is left then.
    async fn open(&self, spec: &LinkSpec) -> Result<Opened, LinkError>;

    /// Dials the guest until the agent answers `Health.Check` over the link, or the target's deadline passes. Dropping the future
    /// stops the dialling. Asked again for the same target it answers at once. A guest that was admitted stays known by its key,
    /// whatever a later target for the same VM says of trust.
    ///
    /// # Errors
    /// [`LinkError::Unsupported`] for a trust the link does not know, [`LinkError::Deadline`] and [`LinkError::Untrusted`] say what was seen last.
    async fn connect(&self, spec: &LinkSpec, target: &LinkTarget) -> Result<Connected, LinkError>;

    /// Who holds the agent socket; none when there is no link.
    ///
    /// # Errors
    /// When there is a link and it does not answer.
    async fn shims(&self, spec: &LinkSpec) -> Result<Option<Shims>, LinkError>;

    /// Ends the link process and removes its sockets; the shim sees EOF. Ok when there is none.
    ///
    /// # Errors
    /// When the process may still be there.
    async fn close(&self, spec: &LinkSpec) -> Result<(), LinkError>;
}
