//! `PeerPodConfig`: on which nodes the service runs, and how many VMs each may have.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kataconfig_status::Condition;

/// How the nodes' service is set up.
#[derive(CustomResource, JsonSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "confidentialcontainers.org",
    version = "v1alpha1",
    kind = "PeerPodConfig",
    plural = "peerpodconfigs",
    singular = "peerpodconfig",
    namespaced,
    status = "PeerPodConfigStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "PeerPodConfig runs the service that gives pods their VMs on nodes, and says how many VMs each node may have.",
    printcolumn(
        name = "Limit",
        type_ = "string",
        json_path = ".spec.limit",
        description = "VMs a node may have"
    ),
    printcolumn(
        name = "Nodes",
        type_ = "integer",
        json_path = ".status.advertisedNodesCount",
        description = "Nodes that advertise them"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyNodesCount",
        description = "Nodes whose service is ready"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Since when"
    )
)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerPodConfigSpec {
    /// The Secret with the cloud's credentials, in the namespace of this object.
    #[schemars(length(min = 1, max = 253))]
    pub cloud_secret_name: String,
    /// The ConfigMap with the cloud's settings, in the namespace of this object.
    #[schemars(length(min = 1, max = 253))]
    pub config_map_name: String,
    /// How many VMs each node may have: a whole number, 0 or more.
    #[schemars(regex(pattern = r"^[0-9]{1,6}$"))]
    pub limit: String,
    /// Labels of the nodes the service runs on; without any, all workers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Not used; kept for what sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
}

impl Default for PeerPodConfigSpec {
    fn default() -> Self {
        Self {
            cloud_secret_name: "peer-pods-secret".to_owned(),
            config_map_name: "peer-pods-cm".to_owned(),
            limit: "10".to_owned(),
            node_selector: BTreeMap::new(),
            instance_type: None,
        }
    }
}

/// The status of a `PeerPodConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerPodConfigStatus {
    /// The service runs and every node advertises its VMs.
    pub setup_completed: bool,
    /// How many nodes advertise VMs.
    pub advertised_nodes_count: i32,
    /// On how many nodes the service is ready.
    pub ready_nodes_count: i32,
    /// Ready, and why not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The generation of the spec that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}
