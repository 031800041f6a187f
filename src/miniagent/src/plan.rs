//! What a child process of the agent shall do, as plain data: computed by [`crate::convert`], carried out by [`crate::child`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One process, and where it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The container it begins or joins.
    pub place: Place,
    /// The process itself.
    pub process: ProcessPlan,
}

/// Where a process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// In a new container, as its first process.
    New(Box<ContainerPlan>),
    /// In the namespaces and root of a container's first process.
    Join {
        /// Number of an inherited descriptor: a pidfd of that first process.
        pidfd: i32,
    },
}

/// A container to make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPlan {
    /// Namespaces to make or join; one that is absent stays the agent's. The mount namespace is always a new one.
    pub namespaces: Vec<NamespacePlan>,
    /// Absolute directory that becomes `/`.
    pub rootfs: PathBuf,
    /// Whether `/` ends up read-only.
    pub readonly: bool,
    /// Host name to set; only where the UTS namespace is new.
    pub hostname: Option<String>,
    /// Mounts, in order.
    pub mounts: Vec<MountPlan>,
    /// Device nodes besides the usual ones.
    pub devices: Vec<DevicePlan>,
    /// Paths to hide.
    pub masked: Vec<PathBuf>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// Kernel parameters by dotted name.
    pub sysctl: BTreeMap<String, String>,
}

/// A namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespacePlan {
    /// Its kind.
    pub kind: NamespaceKind,
    /// What to join; a new one where absent.
    pub path: Option<PathBuf>,
}

/// The kinds of namespace we handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceKind {
    /// Process ids.
    Pid,
    /// Network.
    Network,
    /// Mounts.
    Mount,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host name.
    Uts,
    /// The root of the cgroup tree.
    Cgroup,
}

/// A mount in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPlan {
    /// Absolute path in the container.
    pub target: PathBuf,
    /// What is mounted.
    pub what: MountSource,
    /// `MS_*` bits.
    pub flags: u64,
    /// `MS_*` bits of how mounts propagate; 0 for the default.
    pub propagation: u64,
    /// Options of the file system, comma-separated.
    pub data: String,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory of the VM.
    Bind {
        /// Absolute path in the VM.
        path: PathBuf,
        /// Whether mounts below it come along.
        recursive: bool,
    },
    /// A file system of its own.
    Filesystem {
        /// Its type, such as `proc`.
        fstype: String,
        /// Its source, often only a label.
        source: String,
    },
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicePlan {
    /// Absolute path in the container.
    pub path: PathBuf,
    /// Its type.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The type of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Character device.
    Character,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

/// A process of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// Whether descriptors 0 to 2 are a terminal that shall control the process.
    pub terminal: bool,
    /// Height and width of the terminal in characters, where given.
    pub size: Option<(u16, u16)>,
    /// Program and arguments; never empty.
    pub args: Vec<String>,
    /// `NAME=value` entries.
    pub env: Vec<String>,
    /// Absolute working directory in the container.
    pub cwd: PathBuf,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Capabilities; where absent, what the user change leaves.
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    pub rlimits: Vec<RlimitPlan>,
    /// Whether programs may not gain rights by set-user-id bits.
    pub no_new_privileges: bool,
    /// Score for the kernel's out-of-memory killer, -1000 to 1000.
    pub oom_score_adj: i32,
}

/// Sets of capabilities, one bit each, by the kernel's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// What may ever be gained.
    pub bounding: u64,
    /// In force.
    pub effective: u64,
    /// Kept over exec by programs with inheritable file capabilities.
    pub inheritable: u64,
    /// What may be put in force.
    pub permitted: u64,
    /// Kept over exec by any program.
    pub ambient: u64,
}

/// A resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RlimitPlan {
    /// The resource.
    pub resource: ResourceKind,
    /// Soft limit; `u64::MAX` is none.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is none.
    pub hard: u64,
}

/// The resources that can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in getrlimit(2), where they are described")]
pub enum ResourceKind {
    Cpu,
    Fsize,
    Data,
    Stack,
    Core,
    Rss,
    Nproc,
    Nofile,
    Memlock,
    As,
    Locks,
    Sigpending,
    Msgqueue,
    Nice,
    Rtprio,
    Rttime,
}
