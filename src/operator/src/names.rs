//! The fixed names of what the operator makes and reads: those of OpenShift sandboxed containers 1.4, which people and scripts know.

/// The namespace of the operator and of everything it runs.
pub const NAMESPACE: &str = "openshift-sandboxed-containers-operator";
/// Who we are to server-side apply.
pub const FIELD_MANAGER: &str = "peerpods-operator";

/// The machine config pool of nodes with Kata Containers.
pub const POOL: &str = "kata-oc";
/// The label of a node in that pool, with an empty value.
pub const ROLE_LABEL: &str = "node-role.kubernetes.io/kata-oc";
/// The label of workers.
pub const WORKER_LABEL: &str = "node-role.kubernetes.io/worker";
/// The label of control plane nodes where Kubernetes was installed by its own tools.
pub const CONTROL_PLANE_LABEL: &str = "node-role.kubernetes.io/control-plane";
/// What is to become of our files on a node of a cluster without a machine config operator. The DaemonSets that do it select by its value.
pub const FILES_LABEL: &str = "peerpods.io/kata";
/// The label of control plane nodes, as machine config pools know them.
pub const MASTER_LABEL: &str = "node-role.kubernetes.io/master";
/// What Node Feature Discovery sets on nodes that can run Kata Containers, to `true`.
pub const ELIGIBLE_LABEL: &str = "feature.node.kubernetes.io/runtime.kata";
/// The role of a MachineConfig.
pub const MACHINE_CONFIG_ROLE: &str = "machineconfiguration.openshift.io/role";
/// What the machine config operator does with a node: Done, Working, Degraded and others.
pub const NODE_STATE: &str = "machineconfiguration.openshift.io/state";
/// The rendered configuration a node has.
pub const NODE_CURRENT_CONFIG: &str = "machineconfiguration.openshift.io/currentConfig";
/// Why a node is degraded.
pub const NODE_REASON: &str = "machineconfiguration.openshift.io/reason";

/// The MachineConfig that installs the extension with Kata Containers.
pub const EXTENSION_CONFIG: &str = "50-enable-sandboxed-containers-extension";
/// The MachineConfig with the shim's configuration for peer pods.
pub const SHIM_CONFIG: &str = "40-worker-kata-remote-config";
/// The MachineConfig with CRI-O's drop-in for peer pods.
pub const CRIO_CONFIG: &str = "50-kata-remote-cc";
/// The ContainerRuntimeConfig with the log level.
pub const LOG_LEVEL_CONFIG: &str = "kata-crio-config";

/// The runtime class of VMs on the node.
pub const KATA_CLASS: &str = "kata";
/// The runtime class of VMs elsewhere.
pub const PEER_PODS_CLASS: &str = "kata-remote-cc";

/// The DaemonSet that places our files on nodes where there is no machine config operator, and its label `name`.
pub const INSTALLER: &str = "peerpods-installer";
/// The DaemonSet that removes them, and its label `name`.
pub const REMOVER: &str = "peerpods-remover";
/// The ServiceAccount of both. It has no rights.
pub const INSTALLER_ACCOUNT: &str = "peerpods-installer";
/// What the pods of both were made of, as a hash.
pub const TEMPLATE: &str = "peerpods.io/template";

/// The security context constraints of the monitor.
pub const SCC: &str = "sandboxed-containers-operator-scc";
/// The monitor's DaemonSet, and its label `name`.
pub const MONITOR: &str = "openshift-sandboxed-containers-monitor";
/// The monitor's ServiceAccount.
pub const MONITOR_ACCOUNT: &str = "monitor";
/// The dashboard's ConfigMap.
pub const DASHBOARD: &str = "grafana-dashboard-sandboxed-containers";
/// Where the console looks for dashboards.
pub const DASHBOARD_NAMESPACE: &str = "openshift-config-managed";

/// The PeerPodConfig that a KataConfig makes.
pub const PEER_POD_CONFIG: &str = "peerpodconfig-openshift";
/// The node service's DaemonSet.
pub const NODE_SERVICE: &str = "peerpodconfig-ctrl-caa-daemon";
/// The Secret with the cloud's credentials.
pub const CLOUD_SECRET: &str = "peer-pods-secret";
/// The ConfigMap with the cloud's settings.
pub const CLOUD_CONFIG: &str = "peer-pods-cm";
/// The Secret with the registry credentials for guests.
pub const AUTH_SECRET: &str = "auth-json-secret";
/// The Secret with the SSH key for VMs.
pub const SSH_SECRET: &str = "ssh-key-secret";
