//! What shims send for containers and processes. Pure; field values as in `facts/kata.md` §2.1. Written for this suite, and not taken
//! from `peerpods sandbox`, whose requests are what is tested elsewhere.

use std::path::{Path, PathBuf};

use peerpods_proto::ttrpc::agent::{CreateContainerRequest, Storage};
use peerpods_proto::ttrpc::oci::{
    Box as ConsoleSize, Linux, LinuxCapabilities, LinuxNamespace, Mount, Process, Root, Spec, User,
};
use protobuf::MessageField;

use super::{Order, Rootfs};

/// Where CopyFile may write.
pub(super) const SHARED: &str = "/run/kata-containers/shared/containers";
/// Where the agent keeps what belongs to a container.
const AGENT_DIR: &str = "/run/kata-containers";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Pause,
    App,
}

/// Says what it was given and where it is, then serves until SIGTERM. Nothing but what every shell has built in, and `sleep`.
const APP: &str = "trap 'exit 3' TERM\n\
    echo complaint >&2\n\
    while read -r line; do echo \"$line\"; done < /etc/hosts\n\
    while read -r line; do echo \"$line\"; done < /proc/net/fib_trie\n\
    echo serving\n\
    while :; do sleep 0.1; done";

/// A file shared with a container: `<container>-<16 hexadecimal digits>-<name>`.
pub(super) fn shared(container: &str, name: &str) -> PathBuf {
    Path::new(SHARED).join(format!("{container}-0123456789abcdef-{name}"))
}

pub(super) fn hosts_file(container: &str) -> PathBuf {
    shared(container, "hosts")
}

pub(super) fn resolv_conf(container: &str) -> PathBuf {
    shared(container, "resolv.conf")
}

/// CreateContainer.
pub(super) fn container(order: &Order, id: &str, role: Role) -> CreateContainerRequest {
    let rootfs = format!("{AGENT_DIR}/{id}/rootfs");
    let storages = match (&order.rootfs, role) {
        (Some(Rootfs::Directory(directory)), _) => overlay(directory, id, &rootfs),
        (Some(Rootfs::Image(_)), Role::Pause) => vec![pull("pause", &rootfs)],
        (Some(Rootfs::Image(image)), Role::App) => vec![pull(image, &rootfs)],
        (None, _) => Vec::new(),
    };
    let args: &[&str] = match (role, &order.rootfs) {
        (Role::App, _) => &["sh", "-c", APP],
        (Role::Pause, Some(Rootfs::Image(_))) => &["/pause"],
        (Role::Pause, _) => &["sleep", "2147483647"],
    };
    CreateContainerRequest {
        container_id: id.to_owned(),
        exec_id: id.to_owned(),
        storages,
        OCI: MessageField::some(oci(order, id, role, process(args, None), rootfs)),
        ..CreateContainerRequest::default()
    }
}

/// A process; rows and columns when it has a terminal.
pub(super) fn process(args: &[&str], terminal: Option<(u32, u32)>) -> Process {
    let size = terminal.map(|(rows, columns)| ConsoleSize {
        Height: rows,
        Width: columns,
        ..ConsoleSize::default()
    });
    let capabilities: Vec<String> =
        ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "NET_BIND_SERVICE", "KILL"]
            .map(|name| format!("CAP_{name}"))
            .to_vec();
    let mut env = vec![PATH.to_owned(), "HOSTNAME=web".to_owned()];
    if terminal.is_some() {
        env.push("TERM=xterm".to_owned());
    }
    Process {
        Terminal: terminal.is_some(),
        ConsoleSize: size.map(MessageField::some).unwrap_or_default(),
        User: MessageField::some(User::default()),
        Args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        Env: env,
        Cwd: "/".to_owned(),
        Capabilities: MessageField::some(LinuxCapabilities {
            Bounding: capabilities.clone(),
            Effective: capabilities.clone(),
            Permitted: capabilities,
            ..LinuxCapabilities::default()
        }),
        NoNewPrivileges: true,
        ..Process::default()
    }
}

fn oci(order: &Order, id: &str, role: Role, process: Process, rootfs: String) -> Spec {
    let kind = if role == Role::Pause { "sandbox" } else { "container" };
    let annotations = [
        ("io.kubernetes.cri.container-type", kind),
        ("io.kubernetes.cri.sandbox-id", order.id.as_str()),
        ("io.kubernetes.cri.sandbox-name", order.pod.as_str()),
    ];
    // Network and cgroup namespaces are stripped by both shims.
    let namespaces = ["mount", "pid", "ipc", "uts"]
        .map(|kind| LinuxNamespace { Type: kind.to_owned(), ..LinuxNamespace::default() });
    Spec {
        Version: "1.1.0".to_owned(),
        Process: MessageField::some(process),
        Root: MessageField::some(Root { Path: rootfs, ..Root::default() }),
        Hostname: "web".to_owned(),
        Mounts: mounts(id),
        Annotations: annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect(),
        Linux: MessageField::some(Linux {
            CgroupsPath: format!("/kubepods/besteffort/pod3d8e7c0e/{id}"),
            Namespaces: namespaces.to_vec(),
            MaskedPaths: vec!["/proc/kcore".to_owned()],
            ReadonlyPaths: vec!["/proc/sys".to_owned()],
            ..Linux::default()
        }),
        ..Spec::default()
    }
}

fn mounts(id: &str) -> Vec<Mount> {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| Mount {
        destination: destination.to_owned(),
        type_: kind.to_owned(),
        source: source.to_owned(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    };
    let hosts = hosts_file(id).display().to_string();
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "bind", "/run/kata-containers/sandbox/shm", &["rbind"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/etc/hosts", "bind", &hosts, &["rbind", "rprivate", "rw"]),
    ]
}

fn overlay(lower: &Path, id: &str, rootfs: &str) -> Vec<Storage> {
    let [upper, work] = ["upper", "work"].map(|name| format!("{AGENT_DIR}/{id}/{name}"));
    let local = |mount_point: String| Storage {
        driver: "local".to_owned(),
        source: "local".to_owned(),
        fstype: "local".to_owned(),
        options: vec!["mode=0755".to_owned()],
        mount_point,
        ..Storage::default()
    };
    let options =
        [("lowerdir", lower.display().to_string()), ("upperdir", upper.clone()), ("workdir", work.clone())];
    let overlay = Storage {
        driver: "overlayfs".to_owned(),
        source: "overlay".to_owned(),
        fstype: "overlay".to_owned(),
        options: options.map(|(key, value)| format!("{key}={value}")).to_vec(),
        mount_point: rootfs.to_owned(),
        ..Storage::default()
    };
    vec![local(upper), local(work), overlay]
}

fn pull(image: &str, rootfs: &str) -> Storage {
    Storage {
        driver: "image_guest_pull".to_owned(),
        driver_options: vec!["image_guest_pull={\"metadata\":{}}".to_owned()],
        source: image.to_owned(),
        fstype: "overlay".to_owned(),
        mount_point: rootfs.to_owned(),
        ..Storage::default()
    }
}
