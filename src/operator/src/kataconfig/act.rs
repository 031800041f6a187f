//! Carries a plan out. No decisions but one: what is so already is not written again.

use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use peerpods_crds::{KATACONFIG_FINALIZER, KataConfig};
use serde_json::json;

use super::decide::{Finalizer, Labels, Plan, Role};
use crate::names;
use crate::objects::{self, ObjectError};
use crate::reconciled::{self, WriteError};

/// Why a plan could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// An object.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A node's labels.
    #[error("cannot change the labels of node {node}")]
    Labels {
        /// The node.
        node: String,
        /// What the API server said.
        source: kube::Error,
    },
    /// The KataConfig itself.
    #[error(transparent)]
    Config(#[from] WriteError),
}

/// Carries a plan out, in its order. A step that fails ends it; the next look goes on from what is there then.
///
/// # Errors
/// What the API server said, with the object. The status is written all the same, so that what is known is seen.
pub async fn act(client: &Client, config: &KataConfig, plan: &Plan) -> Result<(), ActError> {
    let configs: Api<KataConfig> = Api::all(client.clone());
    if plan.finalizer == Finalizer::Add {
        reconciled::finalizer(&configs, config, KATACONFIG_FINALIZER, reconciled::Finalizer::There).await?;
    }
    let done = steps(client, plan).await;
    if config.status.as_ref() != Some(&plan.status) {
        reconciled::status(&configs, config, &plan.status).await?;
    }
    done?;
    if plan.finalizer == Finalizer::Remove {
        reconciled::finalizer(&configs, config, KATACONFIG_FINALIZER, reconciled::Finalizer::Gone).await?;
    }
    Ok(())
}

async fn steps(client: &Client, plan: &Plan) -> Result<(), ActError> {
    for desired in &plan.first {
        objects::apply(client, desired).await?;
    }
    for change in &plan.roles {
        role(client, change).await?;
    }
    for change in &plan.labels {
        labels(client, change).await?;
    }
    for desired in &plan.apply {
        objects::apply(client, desired).await?;
    }
    for object in &plan.delete {
        objects::remove(client, object).await?;
    }
    Ok(())
}

/// B18: a patch of the one label, which no other writer of the node gets in the way of.
async fn role(client: &Client, change: &Role) -> Result<(), ActError> {
    let change =
        Labels { node: change.node.clone(), change: [(names::ROLE_LABEL, change.has.then_some(""))].into() };
    labels(client, &change).await
}

/// All labels of a node that change, at once.
async fn labels(client: &Client, change: &Labels) -> Result<(), ActError> {
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = json!({ "metadata": { "labels": change.change } });
    match nodes.patch(&change.node, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => {
            tracing::info!(node = change.node, labels = ?change.change, "labels changed");
            Ok(())
        }
        // A node that is gone has no labels.
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(source) => Err(ActError::Labels { node: change.node.clone(), source }),
    }
}
