//! The files on a node that make its container runtime and the Kata shim use our service. Both shims, Go and Rust, read the same file; each
//! takes its own keys.
//!
//! Owns their contents. Who places them does not matter here: OpenShift's machine config operator, or our installer. Which of them a node
//! needs is not decided here either.

use toml::{Table, Value};

/// Where the shim's configuration lies on a node.
pub const SHIM_CONFIGURATION: &str = "/opt/kata/configuration-remote.toml";
/// The service's socket.
const SOCKET: &str = "/run/peerpod/hypervisor.sock";
/// Annotations of a pod that the shim hands on to the service.
const ANNOTATIONS: [&str; 7] = [
    "machine_type",
    "default_vcpus",
    "default_memory",
    "default_gpus",
    "default_gpu_model",
    "image",
    "cc_init_data",
];
/// How long a container's creation may take: the guest pulls its image meanwhile.
const CREATE_CONTAINER_SECONDS: i64 = 900;

/// A name by which pods ask for a kind of VM, and what answers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    /// The handler's name: that of its runtime class.
    pub name: String,
    /// The shim's program.
    pub shim: String,
    /// The shim's configuration.
    pub configuration: String,
}

/// How containerd's configuration file is written: its `version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerdVersion(u32);

impl ContainerdVersion {
    /// A version; none for those that have no handlers by name as we write them: containerd before 1.3.
    #[must_use]
    pub fn new(version: u32) -> Option<Self> {
        (version >= 2).then_some(Self(version))
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }

    /// The plugin that runs pods' containers.
    #[must_use]
    pub fn plugin(self) -> &'static str {
        if self.0 == 2 { "io.containerd.grpc.v1.cri" } else { "io.containerd.cri.v1.runtime" }
    }

    /// Whether files that are imported add to the section of a plugin. Before, in containerd 1, they take its place: every setting that
    /// the main file has of it is lost.
    #[must_use]
    pub fn merges_plugins(self) -> bool {
        self.0 > 2
    }
}

/// The shim's configuration, TOML. `hypervisor_timeout` is how long a start of a VM may take, in seconds.
#[must_use]
pub fn shim_configuration(hypervisor_timeout: u32) -> String {
    let remote = Value::Table(Table::from_iter([("remote".to_owned(), remote(hypervisor_timeout))]));
    let table = Table::from_iter([
        ("hypervisor".to_owned(), remote),
        ("agent".to_owned(), Value::Table(Table::from_iter([("kata".to_owned(), agent())]))),
        ("runtime".to_owned(), runtime()),
    ]);
    table.to_string()
}

fn remote(hypervisor_timeout: u32) -> Value {
    let timeout = i64::from(hypervisor_timeout);
    let annotations = ANNOTATIONS.map(Value::from).to_vec();
    Value::Table(Table::from_iter([
        // The Go shim's names, and the Rust shim's, which takes no notice of the others.
        ("remote_hypervisor_socket".to_owned(), SOCKET.into()),
        ("remote_hypervisor_timeout".to_owned(), timeout.into()),
        ("hypervisor_socket".to_owned(), SOCKET.into()),
        ("hypervisor_timeout".to_owned(), timeout.into()),
        ("enable_annotations".to_owned(), Value::Array(annotations)),
        ("disable_guest_selinux".to_owned(), true.into()),
        ("default_vcpus".to_owned(), 1.into()),
        ("default_maxvcpus".to_owned(), 0.into()),
        ("default_memory".to_owned(), 2048.into()),
        // Without them the Rust shim refuses a pod with a limit for its CPUs and none for its memory.
        ("overhead_vcpus".to_owned(), Value::Float(0.0)),
        ("overhead_memory".to_owned(), 256.into()),
        ("memory_slots".to_owned(), 10.into()),
    ]))
}

fn agent() -> Value {
    Value::Table(Table::from_iter([
        ("enable_debug".to_owned(), false.into()),
        ("debug_console_enabled".to_owned(), false.into()),
        ("dial_timeout".to_owned(), 30.into()),
        ("dial_timeout_ms".to_owned(), 100.into()),
        ("reconnect_timeout_ms".to_owned(), 30_000.into()),
        ("create_container_timeout".to_owned(), CREATE_CONTAINER_SECONDS.into()),
    ]))
}

fn runtime() -> Value {
    Value::Table(Table::from_iter([
        ("name".to_owned(), "virt_container".into()),
        ("hypervisor_name".to_owned(), "remote".into()),
        ("agent_name".to_owned(), "kata".into()),
        ("internetworking_model".to_owned(), "none".into()),
        ("disable_guest_seccomp".to_owned(), true.into()),
        ("disable_new_netns".to_owned(), true.into()),
        ("sandbox_cgroup_only".to_owned(), true.into()),
        ("static_sandbox_resource_mgmt".to_owned(), true.into()),
        ("create_container_timeout".to_owned(), CREATE_CONTAINER_SECONDS.into()),
        ("experimental".to_owned(), Value::Array(vec!["force_guest_pull".into()])),
    ]))
}

impl Handler {
    /// Whether the pod's images are pulled in its VM.
    fn pulls_in_guest(&self) -> bool {
        self.configuration == SHIM_CONFIGURATION
    }

    fn for_crio(&self) -> Value {
        let mut table = Table::from_iter([
            ("runtime_path".to_owned(), self.shim.clone().into()),
            ("runtime_type".to_owned(), "vm".into()),
            ("runtime_root".to_owned(), "/run/vc".into()),
            ("runtime_config_path".to_owned(), self.configuration.clone().into()),
            ("privileged_without_host_devices".to_owned(), true.into()),
            (
                "allowed_annotations".to_owned(),
                Value::Array(vec!["io.kubernetes.cri-o.Devices".into(), "io.katacontainers.".into()]),
            ),
        ]);
        if self.pulls_in_guest() {
            table.insert("runtime_pull_image".to_owned(), true.into());
        }
        Value::Table(table)
    }

    fn for_containerd(&self) -> Value {
        Value::Table(Table::from_iter([
            ("runtime_type".to_owned(), format!("io.containerd.{}.v2", self.name).into()),
            // Without it the program's name would be made of the type.
            ("runtime_path".to_owned(), self.shim.clone().into()),
            ("privileged_without_host_devices".to_owned(), true.into()),
            ("pod_annotations".to_owned(), Value::Array(vec!["io.katacontainers.*".into()])),
            (
                "options".to_owned(),
                Value::Table(Table::from_iter([(
                    "ConfigPath".to_owned(),
                    self.configuration.clone().into(),
                )])),
            ),
        ]))
    }
}

/// CRI-O's drop-in with its handlers, TOML; with a `log_level`, that as well.
#[must_use]
pub fn crio_drop_in(handlers: &[Handler], log_level: Option<&str>) -> String {
    let runtimes: Table = handlers.iter().map(|handler| (handler.name.clone(), handler.for_crio())).collect();
    let mut runtime = Table::from_iter([("runtimes".to_owned(), Value::Table(runtimes))]);
    if let Some(level) = log_level {
        runtime.insert("log_level".to_owned(), level.into());
    }
    nested(&["crio", "runtime"], Value::Table(runtime)).to_string()
}

/// The sections of containerd's configuration with its handlers, TOML.
#[must_use]
pub fn containerd_handlers(version: ContainerdVersion, handlers: &[Handler]) -> String {
    let runtimes: Table =
        handlers.iter().map(|handler| (handler.name.clone(), handler.for_containerd())).collect();
    nested(&["plugins", version.plugin(), "containerd", "runtimes"], Value::Table(runtimes)).to_string()
}

fn nested(path: &[&str], inner: Value) -> Table {
    let outer = path
        .iter()
        .rev()
        .fold(inner, |inner, name| Value::Table(Table::from_iter([((*name).to_owned(), inner)])));
    match outer {
        Value::Table(table) => table,
        // An empty path and no table: there is nothing to write.
        _ => Table::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(name: &str) -> Handler {
        Handler {
            name: name.to_owned(),
            shim: "/usr/bin/containerd-shim-kata-v2".to_owned(),
            configuration: SHIM_CONFIGURATION.to_owned(),
        }
    }

    #[test]
    fn each_version_of_containerds_configuration_has_its_plugin() {
        for (version, plugin) in [
            (2, "io.containerd.grpc.v1.cri"),
            (3, "io.containerd.cri.v1.runtime"),
            (4, "io.containerd.cri.v1.runtime"),
        ] {
            let text =
                containerd_handlers(ContainerdVersion::new(version).unwrap(), &[remote("kata-remote-cc")]);
            let table: Table = text.parse().unwrap();
            let handler = &table["plugins"][plugin]["containerd"]["runtimes"]["kata-remote-cc"];
            assert_eq!(handler["runtime_type"].as_str(), Some("io.containerd.kata-remote-cc.v2"));
            assert_eq!(handler["runtime_path"].as_str(), Some("/usr/bin/containerd-shim-kata-v2"));
            assert_eq!(handler["options"]["ConfigPath"].as_str(), Some(SHIM_CONFIGURATION));
            // An earlier table header would make a second one of the same name an error where this is appended to a file.
            assert!(!text.contains("[plugins]\n") && !text.contains("runtimes]\n"), "{text}");
        }
        assert_eq!((ContainerdVersion::new(0), ContainerdVersion::new(1)), (None, None));
    }

    #[test]
    fn a_log_level_is_there_only_when_asked_for_and_only_the_remote_handler_pulls_in_the_guest() {
        let local = Handler { configuration: "/opt/kata/configuration.toml".to_owned(), ..remote("kata") };
        let handlers = [remote("kata-remote-cc"), local];
        let table: Table = crio_drop_in(&handlers, Some("debug")).parse().unwrap();
        let runtime = &table["crio"]["runtime"];
        assert_eq!(runtime["log_level"].as_str(), Some("debug"));
        assert!(runtime["runtimes"]["kata-remote-cc"].get("runtime_pull_image").is_some());
        assert!(runtime["runtimes"]["kata"].get("runtime_pull_image").is_none());
        assert!(!crio_drop_in(&handlers, None).contains("log_level"));
    }
}
