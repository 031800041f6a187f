//! What is read of a pod: the fields that decisions are made from. The rest, most of its bytes, is passed over: reading all of it took ten
//! times as long as deciding.
//!
//! A field that a decision comes to need is added here; the tests of decisions make each from the whole pod as well.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, Pod, PodResourceClaim, PodSpec, ResourceRequirements, Volume, VolumeDevice, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// A pod as far as it is read.
#[derive(Debug, Deserialize)]
pub struct Seen {
    metadata: Option<Metadata>,
    spec: Option<Spec>,
}

#[derive(Debug, Default, Deserialize)]
struct Metadata {
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    runtime_class_name: Option<String>,
    host_network: Option<bool>,
    #[serde(rename = "hostPID")]
    host_pid: Option<bool>,
    #[serde(rename = "hostIPC")]
    host_ipc: Option<bool>,
    containers: Option<Vec<Member>>,
    init_containers: Option<Vec<Member>>,
    resources: Option<ResourceRequirements>,
    resource_claims: Option<Vec<IgnoredAny>>,
    volumes: Option<Vec<Volume>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    name: Option<String>,
    resources: Option<ResourceRequirements>,
    restart_policy: Option<String>,
    volume_devices: Option<Vec<IgnoredAny>>,
    volume_mounts: Option<Vec<Mount>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    mount_propagation: Option<String>,
}

impl From<Seen> for Pod {
    fn from(seen: Seen) -> Self {
        let metadata = ObjectMeta {
            annotations: seen.metadata.unwrap_or_default().annotations,
            ..ObjectMeta::default()
        };
        Self { metadata, spec: seen.spec.map(spec), status: None }
    }
}

fn spec(seen: Spec) -> PodSpec {
    PodSpec {
        runtime_class_name: seen.runtime_class_name,
        host_network: seen.host_network,
        host_pid: seen.host_pid,
        host_ipc: seen.host_ipc,
        containers: seen.containers.into_iter().flatten().map(container).collect(),
        init_containers: seen.init_containers.map(|members| members.into_iter().map(container).collect()),
        resources: seen.resources,
        resource_claims: seen.resource_claims.map(|claims| vec![PodResourceClaim::default(); claims.len()]),
        volumes: seen.volumes,
        ..PodSpec::default()
    }
}

fn container(seen: Member) -> Container {
    let mount =
        |seen: Mount| VolumeMount { mount_propagation: seen.mount_propagation, ..VolumeMount::default() };
    Container {
        name: seen.name.unwrap_or_default(),
        resources: seen.resources,
        restart_policy: seen.restart_policy,
        volume_devices: seen.volume_devices.map(|devices| vec![VolumeDevice::default(); devices.len()]),
        volume_mounts: seen.volume_mounts.map(|mounts| mounts.into_iter().map(mount).collect()),
        ..Container::default()
    }
}
