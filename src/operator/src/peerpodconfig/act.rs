//! Carries a plan out. What is so already is not written again.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use peerpods_crds::{PEERPODCONFIG_FINALIZER, PeerPodConfig, PeerPodConfigStatus, VM_RESOURCE};
use peerpods_podvm::causes::chain;
use serde_json::{Value, json};

use super::decide::{Capacity, Plan};
use super::status;
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

/// What came of a plan.
#[derive(Debug)]
pub struct Outcome {
    /// The status that is told now; none where it could not be written.
    pub status: Option<PeerPodConfigStatus>,
    /// Whether all was done, else the step that failed.
    pub done: Result<(), ActError>,
}

impl From<ActError> for Outcome {
    fn from(error: ActError) -> Self {
        Self { status: None, done: Err(error) }
    }
}

/// Carries a plan out, in its order. A step that fails ends it, and the status says so in place of what was planned.
pub async fn act(client: &Client, config: &PeerPodConfig, plan: &Plan) -> Outcome {
    let configs: Api<PeerPodConfig> =
        Api::namespaced(client.clone(), &config.namespace().unwrap_or_default());
    let finalizer = async |wanted: Finalizer| match plan.finalizer == wanted {
        true => reconciled::finalizer(&configs, config, PEERPODCONFIG_FINALIZER, wanted).await,
        false => Ok(()),
    };
    if let Err(error) = finalizer(Finalizer::There).await {
        return ActError::from(error).into();
    }
    let mut done = steps(client, plan).await;
    let before = config.status.clone().unwrap_or_default();
    let status = match &done {
        Ok(()) => plan.status.clone(),
        Err(error) => status::failed(&before, &plan.status, chain(error), Timestamp::now()),
    };
    if before != status
        && let Err(error) = reconciled::status(&configs, config, &status).await
    {
        // The step's error, if there is one, says more.
        return Outcome { status: None, done: done.and(Err(error.into())) };
    }
    if done.is_ok() {
        done = finalizer(Finalizer::Gone).await.map_err(ActError::from);
    }
    Outcome { status: Some(status), done }
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
