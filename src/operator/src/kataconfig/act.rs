//! Carries a plan out. No decisions but one: what is so already is not written again.

use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use peerpods_crds::{KATACONFIG_FINALIZER, KataConfig};
use serde_json::{Value, json};

use super::decide::{Finalizer, Plan, Role};
use crate::names;
use crate::objects::{self, ObjectError};
use crate::reconciled::{self, WriteError};

/// Why a plan could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// An object.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A node's label.
    #[error("cannot change the label {label} of node {node}", label = names::ROLE_LABEL)]
    Role {
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
    let nodes: Api<Node> = Api::all(client.clone());
    let value = if change.has { json!("") } else { Value::Null };
    let patch = json!({ "metadata": { "labels": { names::ROLE_LABEL: value } } });
    match nodes.patch(&change.node, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => {
            tracing::info!(node = change.node, has = change.has, "role changed");
            Ok(())
        }
        // A node that is gone has no role.
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(source) => Err(ActError::Role { node: change.node.clone(), source }),
    }
}
