//! The record as the program of commit dfd8ffc (format 1) reads it, copied and never changed: what is written today must pass through
//! it, or going back to that program loses sandboxes.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// The only version it reads; a lower one is set aside, a higher one stops it.
pub(crate) const VERSION: u32 = 1;

#[derive(Debug, Deserialize)]
pub(crate) struct Version {
    pub(crate) version: u32,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    Created,
    Starting,
    Running,
    Stopping,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct TunnelRecord {
    pub(crate) pod_interface: String,
    pub(crate) remote: IpAddr,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct InstanceRecord {
    pub(crate) id: String,
    pub(crate) addresses: Vec<IpAddr>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct PodRequest {
    pub(crate) pod_name: String,
    pub(crate) pod_namespace: String,
    pub(crate) machine_type: Option<String>,
    pub(crate) image: Option<String>,
    pub(crate) vcpus: Option<u32>,
    pub(crate) memory_mib: Option<u64>,
    pub(crate) gpus: u32,
    pub(crate) gpu_model: Option<String>,
    pub(crate) initdata: Option<serde_json::Value>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Record {
    pub(crate) sandbox: String,
    pub(crate) cluster: String,
    pub(crate) stage: Stage,
    pub(crate) request: PodRequest,
    pub(crate) netns: PathBuf,
    pub(crate) agent_socket: PathBuf,
    pub(crate) vm_name: String,
    pub(crate) vni: u32,
    pub(crate) vxlan_port: u16,
    pub(crate) tunnel: Option<TunnelRecord>,
    pub(crate) instance: Option<InstanceRecord>,
    pub(crate) created_unix_ms: u64,
    pub(crate) boot_id: String,
}
