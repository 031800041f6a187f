//! `KataConfig`: whether and where Kata Containers is installed.

#![allow(
    clippy::duplicated_attributes,
    reason = "each column of kubectl has a type of its own, and some are of one"
)]
#![allow(
    unreachable_pub,
    reason = "KubeSchema makes a second struct, for the schema alone, with the visibility of the first"
)]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kataconfig_status::KataConfigStatus;

/// What `logLevel` may be: CRI-O's levels.
pub const LOG_LEVELS: [&str; 7] = ["trace", "debug", "info", "warn", "error", "fatal", "panic"];
/// The level nothing has to be done for.
pub const DEFAULT_LOG_LEVEL: &str = "info";

/// What an administrator asks for. A cluster has one.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kataconfiguration.openshift.io",
    version = "v1",
    kind = "KataConfig",
    plural = "kataconfigs",
    singular = "kataconfig",
    status = "KataConfigStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "KataConfig installs Kata Containers on the nodes of a cluster. There is one in a cluster; its name is free.",
    printcolumn(
        name = "InProgress",
        type_ = "string",
        json_path = ".status.installationStatus.IsInProgress",
        description = "True while nodes are changed"
    ),
    printcolumn(
        name = "Completed",
        type_ = "integer",
        json_path = ".status.installationStatus.completed.completedNodesCount",
        description = "Nodes that have Kata Containers"
    ),
    printcolumn(
        name = "Total",
        type_ = "integer",
        json_path = ".status.totalNodesCount",
        description = "Nodes that are to have it"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Since when"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct KataConfigSpec {
    /// The nodes that get Kata Containers, by their labels. Without it all workers do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kata_config_pool_selector: Option<NodeSelector>,
    /// Only nodes that Node Feature Discovery found able to run Kata Containers (label feature.node.kubernetes.io/runtime.kata=true).
    #[serde(default)]
    pub check_node_eligibility: bool,
    /// What the container runtime logs: trace, debug, info, warn, error, fatal or panic. Changes reboot nodes on OpenShift, elsewhere they
    /// restart that runtime.
    #[serde(default = "default_log_level")]
    #[schemars(regex(pattern = r"^(trace|debug|info|warn|error|fatal|panic)?$"))]
    pub log_level: String,
    /// Pods with VMs of their own in the cloud: the runtime class kata-remote-cc, its node service and its webhook.
    #[serde(default)]
    pub enable_peer_pods: bool,
    /// The image of the monitor's DaemonSet. Without it that of the operator's variable RELATED_IMAGE_KATA_MONITOR is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub kata_monitor_image: Option<String>,
}

fn default_log_level() -> String {
    DEFAULT_LOG_LEVEL.to_owned()
}

impl KataConfigSpec {
    /// The level that holds; an empty one is the default.
    #[must_use]
    pub fn effective_log_level(&self) -> &str {
        match self.log_level.as_str() {
            "" => DEFAULT_LOG_LEVEL,
            level => level,
        }
    }
}

/// A label selector, as Kubernetes has it. All its requirements must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    /// Labels and the values they must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements on labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub match_expressions: Vec<Requirement>,
}

/// A requirement on one label.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = (
    "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0",
    "In and NotIn need values, Exists and DoesNotExist must have none"
))]
pub struct Requirement {
    /// The label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// In, NotIn, Exists or DoesNotExist.
    // Text: an object that was stored by an older definition may have anything here, and must stay readable to be deleted.
    #[schemars(regex(pattern = r"^(In|NotIn|Exists|DoesNotExist)$"))]
    pub operator: String,
    /// What In and NotIn compare with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub values: Vec<String>,
}
