//! `PeerPod`: that a pod has a VM. The node service writes it before it asks for the VM and removes it when the VM is gone; the operator
//! deletes the VM when nobody else does.

#![allow(
    clippy::duplicated_attributes,
    reason = "each column of kubectl has a type of its own, and some are of one"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which VM.
#[derive(CustomResource, JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "confidentialcontainers.org",
    version = "v1alpha1",
    kind = "PeerPod",
    plural = "peerpods",
    singular = "peerpod",
    namespaced,
    status = "PeerPodStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "PeerPod says which VM a pod has, so that it is deleted with the pod whatever happens to the node.",
    printcolumn(
        name = "VM",
        type_ = "string",
        json_path = ".spec.instanceID",
        description = "The VM's id in its cloud"
    ),
    printcolumn(
        name = "Node",
        type_ = "string",
        json_path = ".spec.nodeName",
        description = "The pod's node"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Since when"
    )
)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerPodSpec {
    /// The provider: aws, azure, qemu.
    #[schemars(length(max = 63))]
    pub cloud_provider: String,
    /// The VM's id in its cloud. Empty while it is being created.
    #[serde(rename = "instanceID")]
    #[schemars(length(max = 1024))]
    pub instance_id: String,
    /// The sandbox the VM is for. With the cluster's id it is the VM's key at the provider.
    #[serde(rename = "sandboxID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub sandbox_id: Option<String>,
    /// The cluster's id as the VM's tags have it.
    #[serde(rename = "clusterID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub cluster_id: Option<String>,
    /// The pod's node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node_name: Option<String>,
    /// Where in its cloud the VM is: its region.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub location: Option<String>,
    /// When the sandbox was asked for, by its node's clock. Tells a pod's newer VM from its older one, also when this was written late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_created: Option<MicroTime>,
}

/// The status of a `PeerPod`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerPodStatus {
    /// The VM is deleted. The name is upstream's.
    pub cleand: bool,
    /// How often its deletion was tried in vain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tries: Option<i32>,
    /// What the provider said last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}
