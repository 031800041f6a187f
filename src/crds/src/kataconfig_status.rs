//! What a `KataConfig` says of itself: the fields of 1.4, with their odd capitals, and the conditions and node lists of later versions.
//! Both are written at the same time and say the same.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Yes, as 1.4 writes it.
pub const WORD_TRUE: &str = "True";
/// No, as 1.4 writes it.
pub const WORD_FALSE: &str = "False";
/// Nothing is known yet, as 1.4 writes it.
pub const NOT_SET: &str = "";

/// The status of a `KataConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KataConfigStatus {
    /// The first runtime class that was made.
    #[serde(deserialize_with = "first_text")]
    pub runtime_class: String,
    /// All runtime classes that were made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runtime_classes: Vec<String>,
    /// How many nodes are to have Kata Containers.
    pub total_nodes_count: i32,
    /// How far installing is.
    pub installation_status: InstallationStatus,
    /// How far removing is.
    pub un_installation_status: UninstallationStatus,
    /// Nothing; kept for what reads it.
    pub upgrade_status: UpgradeStatus,
    /// Something was changed, and the machine config operator has not begun yet.
    #[serde(skip_serializing_if = "is_false")]
    pub waiting_for_mco_to_start: bool,
    /// The nodes by what happens to them.
    pub kata_nodes: KataNodes,
    /// InProgress, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The generation of the spec that this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// 1.5.0 wrote a list where the versions before and after have a text.
fn first_text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::String(text) => text,
        Value::Array(list) => list.first().and_then(Value::as_str).unwrap_or_default().to_owned(),
        _ => String::new(),
    })
}

/// How far installing is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InstallationStatus {
    /// True or False; empty before anything is known.
    #[serde(rename = "IsInProgress")]
    pub is_in_progress: String,
    /// Nodes that are being changed.
    pub inprogress: InstallingNodes,
    /// Nodes that are done.
    pub completed: CompletedNodes,
    /// Nodes that failed.
    pub failed: FailedNodes,
}

/// Nodes that get Kata Containers now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InstallingNodes {
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_progress_nodes_count: Option<i32>,
    /// Whether any is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_in_progress: Option<bool>,
    /// Which.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub binaries_install_nodes_list: Vec<String>,
}

/// Nodes that are done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CompletedNodes {
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_nodes_count: Option<i32>,
    /// Which.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub completed_nodes_list: Vec<String>,
}

/// Nodes that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FailedNodes {
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_nodes_count: Option<i32>,
    /// What the machine config pool says of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub failed_nodes_reason: String,
    /// Which, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed_nodes_list: Vec<FailedNode>,
}

/// A node that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailedNode {
    /// Its name.
    pub name: String,
    /// Why.
    pub error: String,
}

/// How far removing is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UninstallationStatus {
    /// Nodes that are being changed.
    pub in_progress: UninstallingNodes,
    /// Nodes that are done.
    pub completed: CompletedNodes,
    /// Nodes that failed.
    pub failed: FailedNodes,
    /// What stands in the way.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error_message: String,
}

/// Nodes that lose Kata Containers now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UninstallingNodes {
    /// True or False; empty before removing began.
    pub status: String,
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_progress_nodes_count: Option<i32>,
    /// Which.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub binaries_uninstall_nodes_list: Vec<String>,
}

/// Nothing: the field has to be there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpgradeStatus {}

/// The nodes by what happens to them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KataNodes {
    /// How many are to have Kata Containers.
    pub node_count: i32,
    /// How many have it.
    pub ready_node_count: i32,
    /// Have it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub installed: Vec<String>,
    /// Get it now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub installing: Vec<String>,
    /// Will get it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting_to_install: Vec<String>,
    /// Could not get it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed_to_install: Vec<String>,
    /// Lose it now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uninstalling: Vec<String>,
    /// Will lose it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waiting_to_uninstall: Vec<String>,
    /// Could not lose it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed_to_uninstall: Vec<String>,
}

/// Something that holds or does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What.
    #[serde(rename = "type")]
    pub kind: String,
    /// True, False or Unknown.
    pub status: String,
    /// When `status` or `reason` changed last.
    pub last_transition_time: Time,
    /// Why, one word.
    #[serde(default)]
    pub reason: String,
    /// Why, for people.
    #[serde(default)]
    pub message: String,
}
