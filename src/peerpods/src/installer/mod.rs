//! The files on a node that make its container runtime and the Kata shim use our service, where there is no machine config operator: placed,
//! looked after, and removed so that the host is as it was.
//!
//! ```text
//!   observe   what is there of the host's configuration, and which container runtimes run (`observe`, through `host` and `units`)
//!   plan      which files are to be how, as steps; or why nothing may be done (`plan`, with `containerd`; pure)
//!   act       step by step; a container runtime that does not come back gets back what it had (`act`)
//!   stay      until asked to end, looking every minute whether all is still so (`stay`)
//! ```
//!
//! What is the host's own is never replaced: a file at our place without our header is refused by name. In a file that is the host's our
//! part is marked, and taking it away gives the bytes there were. Every step may be the last one before a power cut: what is owed is
//! written down before it is begun (`state`).

pub mod act;
pub mod containerd;
pub mod host;
pub mod observe;
pub mod plan;
pub mod state;
pub mod stay;
pub mod units;

/// A container runtime of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// containerd.
    Containerd,
    /// CRI-O.
    Crio,
}

impl Runtime {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Containerd, Self::Crio];

    /// Its unit at systemd.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Containerd => "containerd.service",
            Self::Crio => "crio.service",
        }
    }
}

impl std::fmt::Display for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.unit())
    }
}
