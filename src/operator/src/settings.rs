//! What the operator is told by its Deployment. Reading it is the binary's work.

use std::collections::BTreeMap;

use crate::names;

/// Settings of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The namespace of the operator and of all it runs.
    pub namespace: String,
    /// The image of the node service; also that of the webhook and of the installer.
    pub image: String,
    /// The image of the monitor.
    pub monitor_image: String,
    /// The extension of the operating system that brings Kata Containers: `sandboxed-containers` in the product.
    pub extension: String,
    /// The runtime class of peer pods; more names for the same.
    pub peer_pod_classes: Vec<String>,
    /// What a pod of a class takes on its node beside its containers, by class.
    pub overheads: BTreeMap<String, Overhead>,
    /// The clouds that the node service can have VMs at: `CLOUD_PROVIDER` must be one of them. Who reads the settings knows what is built in; the
    /// default is all that there may be one day.
    pub providers: Vec<String>,
    /// How long a start of a VM may take, in seconds: what the shim waits.
    pub hypervisor_timeout: u32,
}

/// What a pod takes on its node beside its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overhead {
    /// As a Kubernetes quantity.
    pub cpu: String,
    /// As a Kubernetes quantity.
    pub memory: String,
}

impl Overhead {
    fn new(cpu: &str, memory: &str) -> Self {
        Self { cpu: cpu.to_owned(), memory: memory.to_owned() }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace: names::NAMESPACE.to_owned(),
            image: String::new(),
            monitor_image:
                "quay.io/openshift_sandboxed_containers/openshift-sandboxed-containers-monitor:latest"
                    .to_owned(),
            extension: "kata-containers".to_owned(),
            peer_pod_classes: vec![names::PEER_PODS_CLASS.to_owned()],
            overheads: [
                (names::KATA_CLASS.to_owned(), Overhead::new("250m", "350Mi")),
                (names::PEER_PODS_CLASS.to_owned(), Overhead::new("250m", "120Mi")),
            ]
            .into(),
            providers: ["aws", "azure"].map(str::to_owned).into(),
            // Above it there is only kubelet's patience, which is shorter.
            hypervisor_timeout: 900,
        }
    }
}
