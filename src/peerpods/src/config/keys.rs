//! Every key there is: its name in the file, its variable, its option. The one table behind all three layers, `--help`, the
//! search for misspelt keys and `config show`. Variables are those of `peer-pods-cm` where it has one.

/// One key of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The key in the file; a dot parts a table from its key.
    pub name: &'static str,
    /// The environment variable.
    pub variable: &'static str,
    /// The long option, without dashes.
    pub flag: &'static str,
    /// What stands for the value in `--help`.
    pub value: &'static str,
    /// One sentence for `--help`.
    pub about: &'static str,
    /// Whether its value may be shown.
    pub reveal: Reveal,
}

/// Whether a value may appear in logs, messages and `config show`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reveal {
    /// It may.
    Value,
    /// Only that it is set: it can carry credentials.
    Presence,
    /// Only that it is set, and it has no option: everybody on a machine sees the arguments of its programs.
    Never,
}

const fn key(
    name: &'static str,
    variable: &'static str,
    flag: &'static str,
    value: &'static str,
    about: &'static str,
) -> Key {
    Key { name, variable, flag, value, about, reveal: Reveal::Value }
}

/// The keys, in the order `config show` prints them.
const OWN: &[Key] = &[
    key(
        "roles",
        "PEERPODS_ROLES",
        "roles",
        "ROLE,…",
        "What `peerpods run` runs: hypervisor, operator, webhook",
    ),
    key(
        "kubernetes",
        "PEERPODS_KUBERNETES",
        "kubernetes",
        "MODE",
        "Whether VMs are recorded in a cluster: auto (in a pod of one), on (also with a kubeconfig) or off",
    ),
    key("namespace", "PEERPODS_NAMESPACE", "namespace", "NAME", "The operator's namespace"),
    key(
        "peer-pod-classes",
        "TARGET_RUNTIMECLASS",
        "peer-pod-classes",
        "NAME,…",
        "Runtime classes whose pods get VMs",
    ),
    key(
        "peer-pod-classes-too",
        "TARGET_RUNTIME_CLASS",
        "peer-pod-classes-too",
        "NAME,…",
        "More of them: the variable as the product's guide spells it",
    ),
    key("operator.image", "RELATED_IMAGE_CAA", "operator-image", "IMAGE", "The image of this program"),
    key(
        "operator.monitor-image",
        "RELATED_IMAGE_KATA_MONITOR",
        "operator-monitor-image",
        "IMAGE",
        "The image of the monitor",
    ),
    key(
        "operator.extension",
        "SANDBOXED_CONTAINERS_EXTENSION",
        "operator-extension",
        "NAME",
        "OpenShift's extension that brings Kata Containers",
    ),
    key(
        "webhook.address",
        "PEERPODS_WEBHOOK_ADDRESS",
        "webhook-address",
        "ADDRESS:PORT",
        "Where the API server asks about pods and our objects",
    ),
    key(
        "webhook.certificate",
        "PEERPODS_WEBHOOK_CERTIFICATE",
        "webhook-certificate",
        "SOURCE",
        "Who makes its certificate: own, service-ca or cert-manager:NAMESPACE/NAME",
    ),
    key(
        "webhook.resource",
        "POD_VM_EXTENDED_RESOURCE",
        "webhook-resource",
        "NAME",
        "The extended resource that counts VMs",
    ),
    key(
        "webhook.instance-type",
        "POD_VM_INSTANCE_TYPE",
        "webhook-instance-type",
        "TYPE",
        "An instance type that pods are marked with; default: none",
    ),
    key(
        "provider",
        "CLOUD_PROVIDER",
        "provider",
        "NAME",
        "Who makes the VMs: qemu, or aws where it is built in",
    ),
    key("socket", "REMOTE_HYPERVISOR_ENDPOINT", "socket", "PATH", "The socket the shim calls"),
    key(
        "pods-dir",
        "PODS_DIR",
        "pods-dir",
        "DIR",
        "A directory per sandbox with its agent socket; under /run",
    ),
    key(
        "state-dir",
        "PEERPODS_STATE_DIR",
        "state-dir",
        "DIR",
        "What must outlive a reboot: journal, cluster id, authority",
    ),
    key(
        "cluster-id",
        "PEERPODS_CLUSTER_ID",
        "cluster-id",
        "ID",
        "Owner of every VM made; default: made once, kept in state-dir",
    ),
    key(
        "forwarder-port",
        "FORWARDER_PORT",
        "forwarder-port",
        "PORT",
        "TCP port of the guest's end of the agent link",
    ),
    key("tunnel-type", "TUNNEL_TYPE", "tunnel-type", "TYPE", "How the pod's network reaches the VM: vxlan"),
    key("vxlan-port", "VXLAN_PORT", "vxlan-port", "PORT", "UDP port of the tunnel"),
    key(
        "vxlan-min-id",
        "PEERPODS_VXLAN_MIN_ID",
        "vxlan-min-id",
        "N",
        "Lowest VXLAN network identifier handed out",
    ),
    key(
        "host-interface",
        "PEERPODS_HOST_INTERFACE",
        "host-interface",
        "NAME",
        "Worker interface the guest sends to; default: the one with the default route",
    ),
    key(
        "proxy-timeout",
        "PROXY_TIMEOUT",
        "proxy-timeout",
        "DURATION",
        "Budget of StartVM, until the agent answers, as in 5m or 1h30m",
    ),
    key(
        "unstarted-ttl",
        "PEERPODS_UNSTARTED_TTL",
        "unstarted-ttl",
        "DURATION",
        "A sandbox created and not started for so long is unwound",
    ),
    key(
        "netns-gone-ttl",
        "PEERPODS_NETNS_GONE_TTL",
        "netns-gone-ttl",
        "DURATION",
        "A sandbox whose network namespace is gone for so long is unwound",
    ),
    key(
        "shim-gone-ttl",
        "PEERPODS_SHIM_GONE_TTL",
        "shim-gone-ttl",
        "DURATION",
        "A sandbox whose shim is gone for so long, with nobody at its agent socket, is unwound",
    ),
    key(
        "node",
        "NODE_NAME",
        "node",
        "NAME",
        "This node's name, a tag of every VM it makes; default: the host's name",
    ),
    key(
        "gc",
        "PEERPODS_GC",
        "gc",
        "MODE",
        "What becomes of this node's VMs that no sandbox owns: on, dry-run or off",
    ),
    key("gc-interval", "PEERPODS_GC_INTERVAL", "gc-interval", "DURATION", "How often they are looked for"),
    key(
        "gc-grace",
        "PEERPODS_GC_GRACE",
        "gc-grace",
        "DURATION",
        "How long such a VM must have been seen before it is deleted",
    ),
    key(
        "sweep-interval",
        "PEERPODS_SWEEP_INTERVAL",
        "sweep-interval",
        "DURATION",
        "How often abandoned sandboxes are looked for",
    ),
    key(
        "drain-timeout",
        "PEERPODS_DRAIN_TIMEOUT",
        "drain-timeout",
        "DURATION",
        "How long starts in flight may go on after SIGTERM; the process ends within 10s more",
    ),
    key(
        "health-address",
        "PEERPODS_HEALTH_ADDRESS",
        "health-address",
        "IP:PORT",
        "Where /livez and /readyz are answered over HTTP; off: nowhere",
    ),
    key(
        "guest-identity",
        "PEERPODS_GUEST_IDENTITY",
        "guest-identity",
        "FORM",
        "How VMs prove themselves: token (the VM makes its key), stock (its key is in user data), auto (token where the image can)",
    ),
    Key {
        name: "initdata",
        variable: "INITDATA",
        flag: "initdata",
        value: "BASE64",
        about: "Initdata of pods that bring none: base64 of gzip of TOML",
        reveal: Reveal::Presence,
    },
    key(
        "peerpods-limit-per-node",
        "PEERPODS_LIMIT_PER_NODE",
        "peerpods-limit-per-node",
        "N",
        "VMs this node may have at once, those being removed included; negative: no limit",
    ),
    key(
        "link-program",
        "PEERPODS_LINK_PROGRAM",
        "link-program",
        "PATH",
        "peerpods-link; default: beside this program, else on the PATH",
    ),
    key(
        "link-placement",
        "PEERPODS_LINK_PLACEMENT",
        "link-placement",
        "WHERE",
        "Where links run: systemd (units of the host's), detached (in our control group), auto (the first that can be)",
    ),
    key(
        "systemd-bus",
        "PEERPODS_SYSTEMD_BUS",
        "systemd-bus",
        "SOCKET",
        "The host's system bus, on which its systemd is asked; default: /run/dbus/system_bus_socket",
    ),
    key(
        "client-dir",
        "PEERPODS_CLIENT_DIR",
        "client-dir",
        "DIR",
        "Where `peerpods sandbox` remembers what it made; under /run",
    ),
    key(
        "log-level",
        "PEERPODS_LOG_LEVEL",
        "log-level",
        "LEVEL",
        "error, warn, info, debug, trace, or a filter such as info,peerpods_podnet=debug",
    ),
    key("log-format", "PEERPODS_LOG_FORMAT", "log-format", "FORMAT", "text or json"),
    key(
        "pod-metadata-access",
        "PEERPODS_POD_METADATA_ACCESS",
        "pod-metadata-access",
        "ACCESS",
        "Whether pods reach cloud metadata services (169.254.169.254, fd00:ec2::254, 168.63.129.16): blocked or allowed",
    ),
    key("qemu.program", "PEERPODS_QEMU_PROGRAM", "qemu-program", "PATH", "QEMU"),
    key(
        "qemu.accel",
        "PEERPODS_QEMU_ACCEL",
        "qemu-accel",
        "ACCEL",
        "auto, kvm or tcg; auto takes KVM only when a probe shows that a guest runs",
    ),
    key(
        "qemu.image",
        "PEERPODS_QEMU_IMAGE",
        "qemu-image",
        "DIR",
        "Pod VM image, as `peerpods image build` makes it",
    ),
    key(
        "qemu.images-dir",
        "PEERPODS_QEMU_IMAGES_DIR",
        "qemu-images-dir",
        "DIR",
        "Where images named by a pod's annotation are looked for",
    ),
    key("qemu.state-dir", "PEERPODS_QEMU_STATE_DIR", "qemu-state-dir", "DIR", "Records and consoles of VMs"),
    key("qemu.run-dir", "PEERPODS_QEMU_RUN_DIR", "qemu-run-dir", "DIR", "QEMU's control sockets; under /run"),
    key(
        "qemu.bridge",
        "PEERPODS_QEMU_BRIDGE",
        "qemu-bridge",
        "NAME",
        "Bridge of the VMs, made with the first and removed with the last",
    ),
    key(
        "qemu.subnet",
        "PEERPODS_QEMU_SUBNET",
        "qemu-subnet",
        "CIDR",
        "Addresses of the VMs; the first is the bridge's",
    ),
    key(
        "qemu.default-vcpus",
        "PEERPODS_QEMU_DEFAULT_VCPUS",
        "qemu-default-vcpus",
        "N",
        "Virtual processors of a VM that asks for none",
    ),
    key(
        "qemu.default-memory-mib",
        "PEERPODS_QEMU_DEFAULT_MEMORY_MIB",
        "qemu-default-memory-mib",
        "MIB",
        "Memory of a VM that asks for none",
    ),
    key(
        "qemu.min-memory-mib",
        "PEERPODS_QEMU_MIN_MEMORY_MIB",
        "qemu-min-memory-mib",
        "MIB",
        "Least memory of a VM",
    ),
    key(
        "qemu.max-vcpus",
        "PEERPODS_QEMU_MAX_VCPUS",
        "qemu-max-vcpus",
        "N",
        "Most virtual processors of a VM",
    ),
    key(
        "qemu.max-memory-mib",
        "PEERPODS_QEMU_MAX_MEMORY_MIB",
        "qemu-max-memory-mib",
        "MIB",
        "Most memory of a VM",
    ),
    key(
        "qemu.console-limit-mib",
        "PEERPODS_QEMU_CONSOLE_LIMIT_MIB",
        "qemu-console-limit-mib",
        "MIB",
        "Size at which a VM's console file is emptied",
    ),
];

/// The keys of a cloud's provider, where one was built in.
#[cfg(feature = "aws")]
const CLOUD: &[Key] = &super::aws::KEYS;
#[cfg(not(feature = "aws"))]
const CLOUD: &[Key] = &[];

/// The table, in the order `config show` prints it.
pub static KEYS: &[Key] = &{
    let mut all = [const { Key { name: "", variable: "", flag: "", value: "", about: "", reveal: Reveal::Value } };
        OWN.len() + CLOUD.len()];
    let mut place = 0;
    while place < all.len() {
        all[place] = if place < OWN.len() { OWN[place] } else { CLOUD[place - OWN.len()] };
        place += 1;
    }
    all
};

/// The key of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The known name nearest to a misspelt one, if one is near.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    let spelt = name.replace('_', "-");
    let by_distance = KEYS.iter().map(|key| (strsim::damerau_levenshtein(&spelt, key.name), key.name));
    let (distance, nearest) = by_distance.min()?;
    (distance <= 1 + name.len() / 4).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_variables_and_flags_are_each_unique() {
        let names: BTreeSet<_> = KEYS.iter().map(|k| k.name).collect();
        let variables: BTreeSet<_> = KEYS.iter().map(|k| k.variable).collect();
        let flags: BTreeSet<_> = KEYS.iter().map(|k| k.flag).collect();
        assert_eq!((names.len(), variables.len(), flags.len()), (KEYS.len(), KEYS.len(), KEYS.len()));
    }

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_nonsense_is_not() {
        assert_eq!(nearest("vxlan_port"), Some("vxlan-port"));
        assert_eq!(nearest("sokcet"), Some("socket"));
        assert_eq!(nearest("qemu.subnets"), Some("qemu.subnet"));
        assert_eq!(nearest("zzz"), None);
    }
}
