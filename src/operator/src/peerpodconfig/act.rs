//! Carries a plan out. What is so already is not written again.

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use peerpods_crds::{PEERPODCONFIG_FINALIZER, PeerPodConfig, VM_RESOURCE};
use serde_json::{Value, json};

use super::decide::{Capacity, Plan};
use crate::objects::{self, ObjectError};
use crate::reconciled::{self, Finalizer, WriteError};

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
    #[error(transparent)]
    Config(#[from] WriteError),
}

/// Carries a plan out, in its order.
///
/// # Errors
/// What the API server said, with the object. The status is written all the same.
pub async fn act(client: &Client, config: &PeerPodConfig, plan: &Plan) -> Result<(), ActError> {
    let configs: Api<PeerPodConfig> =
        Api::namespaced(client.clone(), &config.namespace().unwrap_or_default());
    if plan.finalizer == Finalizer::There {
        reconciled::finalizer(&configs, config, PEERPODCONFIG_FINALIZER, Finalizer::There).await?;
    }
    let done = steps(client, plan).await;
    if config.status.clone().unwrap_or_default() != plan.status {
        reconciled::status(&configs, config, &plan.status).await?;
    }
    done?;
    if plan.finalizer == Finalizer::Gone {
        reconciled::finalizer(&configs, config, PEERPODCONFIG_FINALIZER, Finalizer::Gone).await?;
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
