//! What a shim would send the agent for one sandbox with one container. Pure; field values as in `facts/kata.md` §2.1.

use std::collections::HashMap;
use std::path::Path;

use peerpods_podvm::SandboxId;
use peerpods_proto::ttrpc::agent::{
    CreateContainerRequest, CreateSandboxRequest, ExecProcessRequest, Storage,
};
use peerpods_proto::ttrpc::oci::{
    Box as ConsoleSize, Linux, LinuxCapabilities, LinuxNamespace, Mount, Process, Root, Spec, User,
};
use protobuf::MessageField;

use super::rootfs;

/// Where the agent keeps what belongs to a container.
const AGENT_DIR: &str = "/run/kata-containers";

/// The PATH of a command that brings none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The longest host name Linux takes.
const HOST_NAME_MAX: usize = 64;

/// Rows and columns of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// Whether a command has a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// Pipes; stdout and stderr stay apart.
    None,
    /// A terminal, of a size if it is known.
    Tty(Option<Size>),
}

/// A command as the user gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSpec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Variables on top of PATH.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: String,
    /// Terminal.
    pub terminal: Terminal,
}

impl CommandSpec {
    /// A process that does nothing and lives as long as its sandbox. As the first process of its PID namespace it heeds no
    /// signal but SIGKILL, like a pause container.
    #[must_use]
    pub fn hold() -> Self {
        let args = ["sleep", "2147483647"].map(str::to_owned).to_vec();
        Self { args, env: Vec::new(), cwd: "/".to_owned(), terminal: Terminal::None }
    }
}

/// A container to make: its id is the sandbox's, as that of a pause container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSpec {
    /// The sandbox.
    pub id: SandboxId,
    /// Host name.
    pub hostname: String,
    /// Directory in the guest that becomes the root file system's lower layer.
    pub userland: String,
    /// Its first process.
    pub command: CommandSpec,
}

/// The request that opens a sandbox in the agent.
#[must_use]
pub fn create_sandbox(id: &SandboxId, hostname: &str) -> CreateSandboxRequest {
    let options = ["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"];
    let shm = Storage {
        driver: "ephemeral".to_owned(),
        source: "shm".to_owned(),
        fstype: "tmpfs".to_owned(),
        options: options.map(str::to_owned).to_vec(),
        mount_point: format!("{AGENT_DIR}/sandbox/shm"),
        ..Storage::default()
    };
    CreateSandboxRequest {
        hostname: cut(hostname),
        sandbox_id: id.to_string(),
        storages: vec![shm],
        ..CreateSandboxRequest::default()
    }
}

/// The request that makes the container; its process waits for `StartContainer`.
#[must_use]
pub fn create_container(spec: &ContainerSpec) -> CreateContainerRequest {
    let own = Path::new(AGENT_DIR).join(spec.id.as_str());
    let rootfs = own.join("rootfs").display().to_string();
    CreateContainerRequest {
        container_id: spec.id.to_string(),
        exec_id: spec.id.to_string(),
        storages: rootfs::overlay(&spec.userland, &own, &rootfs),
        OCI: MessageField::some(oci(spec, rootfs)),
        ..CreateContainerRequest::default()
    }
}

/// The request that runs a further command in a container.
#[must_use]
pub fn exec(container: &str, exec_id: &str, command: &CommandSpec) -> ExecProcessRequest {
    ExecProcessRequest {
        container_id: container.to_owned(),
        exec_id: exec_id.to_owned(),
        process: MessageField::some(process(command)),
        ..ExecProcessRequest::default()
    }
}

fn oci(spec: &ContainerSpec, rootfs: String) -> Spec {
    let annotations = [
        ("io.kubernetes.cri.container-type", "sandbox"),
        ("io.kubernetes.cri.sandbox-id", spec.id.as_str()),
        ("io.kubernetes.cri.sandbox-name", spec.hostname.as_str()),
    ];
    Spec {
        Version: "1.1.0".to_owned(),
        Process: MessageField::some(process(&spec.command)),
        Root: MessageField::some(Root { Path: rootfs, ..Root::default() }),
        Hostname: cut(&spec.hostname),
        Mounts: mounts(),
        Annotations: HashMap::from(annotations.map(|(key, value)| (key.to_owned(), value.to_owned()))),
        Linux: MessageField::some(linux(&spec.id)),
        ..Spec::default()
    }
}

fn process(command: &CommandSpec) -> Process {
    let size = match command.terminal {
        Terminal::Tty(Some(size)) => MessageField::some(ConsoleSize {
            Height: size.rows.into(),
            Width: size.columns.into(),
            ..ConsoleSize::default()
        }),
        Terminal::Tty(None) | Terminal::None => MessageField::none(),
    };
    Process {
        Terminal: command.terminal != Terminal::None,
        ConsoleSize: size,
        User: MessageField::some(User::default()),
        Args: command.args.clone(),
        Env: environment(command),
        Cwd: command.cwd.clone(),
        Capabilities: MessageField::some(capabilities()),
        ..Process::default()
    }
}

/// PATH, TERM for a terminal, then what the user gave; a variable given twice has its last value.
fn environment(command: &CommandSpec) -> Vec<String> {
    let mut variables = vec![PATH.to_owned()];
    if command.terminal != Terminal::None {
        variables.push("TERM=xterm".to_owned());
    }
    for (name, value) in &command.env {
        let prefix = format!("{name}=");
        variables.retain(|variable| !variable.starts_with(&prefix));
        variables.push(format!("{prefix}{value}"));
    }
    variables
}

/// What container runtimes give by default.
fn capabilities() -> LinuxCapabilities {
    let names: Vec<String> = [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
    .map(|name| format!("CAP_{name}"))
    .to_vec();
    LinuxCapabilities {
        Bounding: names.clone(),
        Effective: names.clone(),
        Permitted: names,
        ..LinuxCapabilities::default()
    }
}

fn mounts() -> Vec<Mount> {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| Mount {
        destination: destination.to_owned(),
        type_: kind.to_owned(),
        source: source.to_owned(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    };
    let shm = format!("{AGENT_DIR}/sandbox/shm");
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "bind", &shm, &["rbind"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/run", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ]
}

/// Namespaces without a network one: shims strip it, and the guest end of the link puts the pod's in.
fn linux(id: &SandboxId) -> Linux {
    let namespace = |kind: &str| LinuxNamespace { Type: kind.to_owned(), ..LinuxNamespace::default() };
    let masked = [
        "/proc/acpi",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/sched_debug",
    ];
    let readonly = ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    Linux {
        CgroupsPath: format!("/peerpods/{id}"),
        Namespaces: ["mount", "pid", "ipc", "uts"].map(namespace).to_vec(),
        MaskedPaths: masked.map(str::to_owned).to_vec(),
        ReadonlyPaths: readonly.map(str::to_owned).to_vec(),
        ..Linux::default()
    }
}

fn cut(hostname: &str) -> String {
    hostname.chars().take(HOST_NAME_MAX).collect()
}

/// Where images of ours have a small root file system, when nothing says otherwise.
pub const DEFAULT_USERLAND: &str = "/usr/lib/peerpods/userland";

/// Where an image says its small root file system for containers lies, else where our builder puts it.
///
/// # Errors
/// When there is a description and it cannot be read.
pub fn userland(image: &Path) -> std::io::Result<String> {
    match std::fs::read(image.join(peerpods_podvm::image::DESCRIPTION)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(DEFAULT_USERLAND.to_owned()),
        Err(error) => Err(error),
        Ok(bytes) => {
            let image: peerpods_podvm::image::QemuImage = serde_json::from_slice(&bytes)?;
            Ok(image.userland.unwrap_or_else(|| DEFAULT_USERLAND.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(terminal: Terminal) -> CommandSpec {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        CommandSpec {
            args: vec!["echo".to_owned(), "a b".to_owned()],
            env: vec![pair("A", "1"), pair("TERM", "vt100"), pair("A", "2=3")],
            cwd: "/tmp".to_owned(),
            terminal,
        }
    }

    fn container() -> CreateContainerRequest {
        create_container(&ContainerSpec {
            id: "abc".parse().unwrap(),
            hostname: "h".repeat(80),
            userland: "/userland".to_owned(),
            command: command(Terminal::None),
        })
    }

    #[test]
    fn a_container_is_an_overlay_on_the_userland_named_as_its_sandbox() {
        let request = container();
        assert_eq!((request.container_id.as_str(), request.exec_id.as_str()), ("abc", "abc"));
        let storage = request.storages.last().unwrap();
        assert_eq!((storage.driver.as_str(), storage.fstype.as_str()), ("overlayfs", "overlay"));
        assert_eq!(storage.options[0], "lowerdir=/userland");
        assert_eq!(storage.mount_point, "/run/kata-containers/abc/rootfs");
        assert_eq!(request.OCI.Root.Path, storage.mount_point);
        assert_eq!(request.OCI.Hostname.len(), 64);
    }

    #[test]
    fn a_container_brings_no_network_namespace() {
        let request = container();
        let kinds: Vec<&str> = request.OCI.Linux.Namespaces.iter().map(|n| n.Type.as_str()).collect();
        assert_eq!(kinds, ["mount", "pid", "ipc", "uts"]);
        assert!(request.OCI.Linux.Namespaces.iter().all(|n| n.Path.is_empty()));
    }

    #[test]
    fn the_users_variables_win_and_the_last_of_two_counts() {
        let request = exec("c", "e", &command(Terminal::Tty(Some(Size { rows: 24, columns: 80 }))));
        assert_eq!(request.process.Env, [PATH, "TERM=vt100", "A=2=3"]);
        assert!(request.process.Terminal);
        assert_eq!((request.process.ConsoleSize.Height, request.process.ConsoleSize.Width), (24, 80));
        assert_eq!(request.process.Cwd, "/tmp");
    }

    #[test]
    fn a_command_without_terminal_has_no_console() {
        let request = exec("c", "e", &command(Terminal::None));
        assert!(!request.process.Terminal && request.process.ConsoleSize.is_none());
        assert_eq!(request.process.Args, ["echo", "a b"]);
    }

    #[test]
    fn the_agents_sandbox_gets_its_shared_memory_and_no_dns() {
        let request = create_sandbox(&"abc".parse().unwrap(), "web");
        assert!(request.dns.is_empty());
        assert_eq!(request.storages[0].mount_point, "/run/kata-containers/sandbox/shm");
        assert_eq!((request.sandbox_id.as_str(), request.hostname.as_str()), ("abc", "web"));
    }
}
