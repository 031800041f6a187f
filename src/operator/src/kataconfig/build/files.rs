//! The files on a node that make its container runtime and the Kata shim use our service. Both shims, Go and Rust, read the same file; each
//! takes its own keys.

use toml::Table;
use toml::Value;

use crate::settings::Settings;

/// Where the shim's configuration lies on a node.
pub(super) const SHIM_CONFIGURATION: &str = "/opt/kata/configuration-remote.toml";
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

/// The shim's configuration, TOML.
#[must_use]
pub fn shim_configuration(settings: &Settings) -> String {
    let table = Table::from_iter([
        ("hypervisor".to_owned(), Value::Table(Table::from_iter([("remote".to_owned(), remote(settings))]))),
        ("agent".to_owned(), Value::Table(Table::from_iter([("kata".to_owned(), agent())]))),
        ("runtime".to_owned(), runtime()),
    ]);
    table.to_string()
}

fn remote(settings: &Settings) -> Value {
    let timeout = i64::from(settings.hypervisor_timeout);
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

/// CRI-O's drop-in with the handler of each class, TOML.
#[must_use]
pub fn crio_drop_in(classes: &[String]) -> String {
    let handler = || {
        Value::Table(Table::from_iter([
            ("runtime_path".to_owned(), "/usr/bin/containerd-shim-kata-v2".into()),
            ("runtime_type".to_owned(), "vm".into()),
            ("runtime_root".to_owned(), "/run/vc".into()),
            ("runtime_config_path".to_owned(), SHIM_CONFIGURATION.into()),
            ("privileged_without_host_devices".to_owned(), true.into()),
            ("runtime_pull_image".to_owned(), true.into()),
            (
                "allowed_annotations".to_owned(),
                Value::Array(vec!["io.kubernetes.cri-o.Devices".into(), "io.katacontainers.".into()]),
            ),
        ]))
    };
    let handlers: Table = classes.iter().map(|class| (class.clone(), handler())).collect();
    let nested = ["runtimes", "runtime", "crio"].iter().fold(Value::Table(handlers), |inner, name| {
        Value::Table(Table::from_iter([((*name).to_owned(), inner)]))
    });
    nested.as_table().map(ToString::to_string).unwrap_or_default()
}
