//! Carries a plan out. What is so already is not written again.

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use peerpods_crds::{PEERPODCONFIG_FINALIZER, PeerPodConfig, VM_RESOURCE};
use serde_json::{Value, json};

use super::decide::{Capacity, Plan};
use crate::objects::{self, ObjectError};

/// Why a plan could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// An object.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A node's capacity.
    #[error("cannot change {VM_RESOURCE} of node {node}")]
    Capacity {
        /// The node.
        node: String,
        /// What the API server said.
        source: kube::Error,
    },
    /// The PeerPodConfig itself.
    #[error("cannot write the {part} of PeerPodConfig {name}")]
    Config {
        /// Which part.
        part: &'static str,
        /// Its name.
        name: String,
        /// What the API server said.
        source: kube::Error,
    },
}

/// Carries a plan out, in its order.
///
/// # Errors
/// What the API server said, with the object. The status is written all the same.
pub async fn act(client: &Client, config: &PeerPodConfig, plan: &Plan) -> Result<(), ActError> {
    if plan.finalizer {
        finalizer(client, config, true).await?;
    }
    let done = steps(client, plan).await;
    status(client, config, plan).await?;
    done?;
    if !plan.finalizer {
        finalizer(client, config, false).await?;
    }
    Ok(())
}

async fn steps(client: &Client, plan: &Plan) -> Result<(), ActError> {
    for change in &plan.capacity {
        capacity(client, change).await?;
    }
    for desired in &plan.apply {
        objects::apply(client, desired).await?;
    }
    Ok(())
}

/// The kubelet makes what is allocatable of it.
async fn capacity(client: &Client, change: &Capacity) -> Result<(), ActError> {
    let nodes: Api<Node> = Api::all(client.clone());
    let value = change.limit.map_or(Value::Null, |limit| limit.to_string().into());
    let patch = json!({ "status": { "capacity": { VM_RESOURCE: value } } });
    match nodes.patch_status(&change.node, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => {
            tracing::info!(node = change.node, limit = change.limit, "{VM_RESOURCE} changed");
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(source) => Err(ActError::Capacity { node: change.node.clone(), source }),
    }
}

async fn finalizer(client: &Client, config: &PeerPodConfig, wanted: bool) -> Result<(), ActError> {
    let has = config.finalizers().iter().any(|name| name == PEERPODCONFIG_FINALIZER);
    if has == wanted {
        return Ok(());
    }
    let configs = api(client, config);
    let Some(now) =
        configs.get_metadata_opt(&config.name_any()).await.map_err(failed("finalizers", config))?
    else {
        return Ok(());
    };
    if now.uid() != config.uid() || now.finalizers() != config.finalizers() {
        return Ok(());
    }
    let others = config.finalizers().iter().filter(|name| *name != PEERPODCONFIG_FINALIZER);
    let all: Vec<&str> =
        others.map(String::as_str).chain(wanted.then_some(PEERPODCONFIG_FINALIZER)).collect();
    let patch = json!({ "metadata": { "finalizers": all, "resourceVersion": now.resource_version() } });
    match configs.patch(&config.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        done => done.map(drop).map_err(failed("finalizers", config)),
    }
}

async fn status(client: &Client, config: &PeerPodConfig, plan: &Plan) -> Result<(), ActError> {
    if config.status.clone().unwrap_or_default() == plan.status {
        return Ok(());
    }
    let patch = json!([
        { "op": "test", "path": "/metadata/uid", "value": config.uid() },
        { "op": "add", "path": "/status", "value": plan.status },
    ]);
    let patch: json_patch::Patch =
        serde_json::from_value(patch).map_err(kube::Error::SerdeError).map_err(failed("status", config))?;
    let configs = api(client, config);
    match configs.patch_status(&config.name_any(), &PatchParams::default(), &Patch::Json::<()>(patch)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        done => done.map(drop).map_err(failed("status", config)),
    }
}

fn api(client: &Client, config: &PeerPodConfig) -> Api<PeerPodConfig> {
    Api::namespaced(client.clone(), &config.namespace().unwrap_or_default())
}

fn failed(part: &'static str, config: &PeerPodConfig) -> impl FnOnce(kube::Error) -> ActError {
    let name = config.name_any();
    move |source| ActError::Config { part, name, source }
}
