//! From the OCI description in a request to a [`Plan`](crate::plan::Plan)'s parts. Pure: what must be known of the VM is passed in.

use std::path::{Path, PathBuf};

use peerpods_proto::ttrpc::oci;

use crate::mount_options::{self, Depth};
use crate::plan::{
    Capabilities, ContainerPlan, DeviceKind, DevicePlan, MountPlan, MountSource, NamespaceKind,
    NamespacePlan, ProcessPlan, ResourceKind, RlimitPlan,
};

/// What a request asks for and we do not do, or cannot understand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// Something we do not do at all; ignoring it would weaken or change the container.
    #[error("{what} is not supported")]
    Unsupported {
        /// What was asked for.
        what: String,
    },
    /// No program to run.
    #[error("the process has no arguments")]
    NoArguments,
    /// A path that must be absolute.
    #[error("{what} {path:?} is not absolute")]
    NotAbsolute {
        /// Which path.
        what: &'static str,
        /// The path.
        path: String,
    },
    /// A name we do not know.
    #[error("unknown {what} {name:?}")]
    Unknown {
        /// What kind of name.
        what: &'static str,
        /// The name.
        name: String,
    },
}

/// What the agent knows of the VM and the sandbox when it makes a container.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The sandbox's UTS namespace, where it has one.
    pub uts: Option<PathBuf>,
    /// The sandbox's IPC namespace, where it has one.
    pub ipc: Option<PathBuf>,
    /// The process namespace to share, where the request asks for the sandbox's.
    pub pid: Option<PathBuf>,
    /// Whether the VM has cgroup version 2 at its usual place.
    pub cgroups: Cgroups,
}

/// What cgroups the VM offers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cgroups {
    /// Version 2.
    Unified,
    /// None that we use.
    #[default]
    None,
}

/// The container of a CreateContainer request. Its root directory is taken as given.
///
/// # Errors
/// [`ConvertError`] for anything that cannot be carried out.
pub fn container(spec: &oci::Spec, around: &Surroundings) -> Result<ContainerPlan, ConvertError> {
    refuse_hooks(&spec.Hooks)?;
    let linux = &spec.Linux;
    if linux.Seccomp.is_some() {
        // GetGuestDetails says that we have none, upon which the shims leave it out.
        return Err(ConvertError::Unsupported { what: "a seccomp filter".into() });
    }
    let namespaces = namespaces(&linux.Namespaces, around)?;
    let own_uts = namespaces.iter().any(|n| n.kind == NamespaceKind::Uts && n.path.is_none());
    Ok(ContainerPlan {
        namespaces,
        rootfs: absolute("root", &spec.Root.Path)?,
        readonly: spec.Root.Readonly,
        hostname: (own_uts && !spec.Hostname.is_empty()).then(|| spec.Hostname.clone()),
        mounts: spec
            .Mounts
            .iter()
            .filter_map(|m| mount(m, around.cgroups).transpose())
            .collect::<Result<_, _>>()?,
        devices: linux.Devices.iter().map(device).collect::<Result<_, _>>()?,
        masked: linux.MaskedPaths.iter().map(PathBuf::from).collect(),
        readonly_paths: linux.ReadonlyPaths.iter().map(PathBuf::from).collect(),
        sysctl: linux.Sysctl.clone().into_iter().collect(),
    })
}

fn refuse_hooks(hooks: &oci::Hooks) -> Result<(), ConvertError> {
    let all = [
        &hooks.Prestart,
        &hooks.Poststart,
        &hooks.Poststop,
        &hooks.CreateRuntime,
        &hooks.CreateContainer,
        &hooks.StartContainer,
    ];
    if all.iter().all(|list| list.is_empty()) {
        return Ok(());
    }
    Err(ConvertError::Unsupported { what: "an OCI hook".into() })
}

/// The shims clear the paths of the node's namespaces, leave out the network's, and expect the sandbox to share names and IPC.
fn namespaces(
    asked: &[oci::LinuxNamespace],
    around: &Surroundings,
) -> Result<Vec<NamespacePlan>, ConvertError> {
    let mut plans = Vec::new();
    for namespace in asked {
        let kind = namespace_kind(&namespace.Type)?;
        let given = (!namespace.Path.is_empty()).then(|| PathBuf::from(&namespace.Path));
        let path = match kind {
            NamespaceKind::Uts => given.or_else(|| around.uts.clone()),
            NamespaceKind::Ipc => given.or_else(|| around.ipc.clone()),
            NamespaceKind::Network => given,
            // Process namespaces follow below; joining another mount or cgroup tree makes no sense in a VM.
            NamespaceKind::Pid | NamespaceKind::Mount => continue,
            NamespaceKind::Cgroup => None,
        };
        plans.push(NamespacePlan { kind, path });
    }
    plans.push(NamespacePlan { kind: NamespaceKind::Pid, path: around.pid.clone() });
    plans.push(NamespacePlan { kind: NamespaceKind::Mount, path: None });
    Ok(plans)
}

fn namespace_kind(name: &str) -> Result<NamespaceKind, ConvertError> {
    Ok(match name {
        "pid" => NamespaceKind::Pid,
        "network" => NamespaceKind::Network,
        "mount" => NamespaceKind::Mount,
        "ipc" => NamespaceKind::Ipc,
        "uts" => NamespaceKind::Uts,
        "cgroup" => NamespaceKind::Cgroup,
        "user" => return Err(ConvertError::Unsupported { what: "a user namespace".into() }),
        other => return Err(ConvertError::Unknown { what: "namespace", name: other.into() }),
    })
}

/// A mount, or nothing for a cgroup tree in a VM that has none.
fn mount(asked: &oci::Mount, cgroups: Cgroups) -> Result<Option<MountPlan>, ConvertError> {
    let target = absolute("mount target", &asked.destination)?;
    let options = mount_options::sort(&asked.options);
    let bind = options.bind.or((asked.type_ == "bind").then_some(Depth::Single));
    let (what, data) = match (bind, asked.type_.as_str(), cgroups) {
        (Some(depth), ..) => {
            let path = absolute("bind source", &asked.source)?;
            (MountSource::Bind { path, recursive: depth == Depth::Recursive }, String::new())
        }
        (None, "cgroup" | "cgroup2", Cgroups::None) => return Ok(None),
        (None, "cgroup" | "cgroup2", Cgroups::Unified) => {
            (MountSource::Filesystem { fstype: "cgroup2".into(), source: "cgroup".into() }, String::new())
        }
        (None, fstype, _) => {
            let source = if asked.source.is_empty() { fstype } else { &asked.source };
            (MountSource::Filesystem { fstype: fstype.into(), source: source.into() }, options.data)
        }
    };
    let (flags, propagation) = (options.flags, options.propagation);
    Ok(Some(MountPlan { target, what, flags, propagation, data }))
}

fn device(asked: &oci::LinuxDevice) -> Result<DevicePlan, ConvertError> {
    let kind = match asked.Type.as_str() {
        "c" | "u" => DeviceKind::Character,
        "b" => DeviceKind::Block,
        "p" => DeviceKind::Fifo,
        other => return Err(ConvertError::Unknown { what: "device type", name: other.into() }),
    };
    let number = |value: i64| u64::try_from(value).unwrap_or_default();
    Ok(DevicePlan {
        path: absolute("device", &asked.Path)?,
        kind,
        major: number(asked.Major),
        minor: number(asked.Minor),
        mode: if asked.FileMode == 0 { 0o666 } else { asked.FileMode & 0o7777 },
        uid: asked.UID,
        gid: asked.GID,
    })
}

/// The process of a CreateContainer or ExecProcess request.
///
/// # Errors
/// [`ConvertError`] for anything that cannot be carried out.
pub fn process(asked: &oci::Process) -> Result<ProcessPlan, ConvertError> {
    if asked.Args.first().is_none_or(String::is_empty) {
        return Err(ConvertError::NoArguments);
    }
    let cwd = if asked.Cwd.is_empty() { "/" } else { &asked.Cwd };
    let size = asked.ConsoleSize.as_ref().map(|size| (cells(size.Height), cells(size.Width)));
    Ok(ProcessPlan {
        terminal: asked.Terminal,
        size: size.filter(|size| *size != (0, 0)),
        args: asked.Args.clone(),
        env: asked.Env.clone(),
        cwd: absolute("working directory", cwd)?,
        uid: asked.User.UID,
        gid: asked.User.GID,
        groups: asked.User.AdditionalGids.clone(),
        capabilities: asked.Capabilities.as_ref().map(capabilities).transpose()?,
        rlimits: asked.Rlimits.iter().map(rlimit).collect::<Result<_, _>>()?,
        no_new_privileges: asked.NoNewPrivileges,
        oom_score_adj: i32::try_from(asked.OOMScoreAdj.clamp(-1000, 1000)).unwrap_or_default(),
    })
}

/// A terminal's height or width as the kernel holds it.
#[must_use]
pub fn cells(count: u32) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// Names of the capabilities without "CAP_", in the order of the kernel's numbers.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn capabilities(asked: &oci::LinuxCapabilities) -> Result<Capabilities, ConvertError> {
    Ok(Capabilities {
        bounding: capability_set(&asked.Bounding)?,
        effective: capability_set(&asked.Effective)?,
        inheritable: capability_set(&asked.Inheritable)?,
        permitted: capability_set(&asked.Permitted)?,
        ambient: capability_set(&asked.Ambient)?,
    })
}

fn capability_set(names: &[String]) -> Result<u64, ConvertError> {
    names.iter().try_fold(0, |set, name| {
        let bare = name.strip_prefix("CAP_").unwrap_or(name);
        let number = CAPABILITIES.iter().position(|known| *known == bare);
        let number =
            number.ok_or_else(|| ConvertError::Unknown { what: "capability", name: name.clone() })?;
        Ok(set | 1 << number)
    })
}

fn rlimit(asked: &oci::POSIXRlimit) -> Result<RlimitPlan, ConvertError> {
    let resource = match asked.Type.as_str() {
        "RLIMIT_CPU" => ResourceKind::Cpu,
        "RLIMIT_FSIZE" => ResourceKind::Fsize,
        "RLIMIT_DATA" => ResourceKind::Data,
        "RLIMIT_STACK" => ResourceKind::Stack,
        "RLIMIT_CORE" => ResourceKind::Core,
        "RLIMIT_RSS" => ResourceKind::Rss,
        "RLIMIT_NPROC" => ResourceKind::Nproc,
        "RLIMIT_NOFILE" => ResourceKind::Nofile,
        "RLIMIT_MEMLOCK" => ResourceKind::Memlock,
        "RLIMIT_AS" => ResourceKind::As,
        "RLIMIT_LOCKS" => ResourceKind::Locks,
        "RLIMIT_SIGPENDING" => ResourceKind::Sigpending,
        "RLIMIT_MSGQUEUE" => ResourceKind::Msgqueue,
        "RLIMIT_NICE" => ResourceKind::Nice,
        "RLIMIT_RTPRIO" => ResourceKind::Rtprio,
        "RLIMIT_RTTIME" => ResourceKind::Rttime,
        other => return Err(ConvertError::Unknown { what: "resource limit", name: other.into() }),
    };
    Ok(RlimitPlan { resource, soft: asked.Soft, hard: asked.Hard })
}

fn absolute(what: &'static str, path: &str) -> Result<PathBuf, ConvertError> {
    if Path::new(path).is_absolute() {
        return Ok(PathBuf::from(path));
    }
    Err(ConvertError::NotAbsolute { what, path: path.into() })
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
