//! Carries a plan out, and tells how far it came. No decisions but one: what is so already is not written again.

use std::collections::BTreeSet;
use std::error::Error;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use peerpods_crds::{KATACONFIG_FINALIZER, KataConfig, KataConfigStatus};
use serde_json::json;

use super::decide::{Finalizer, Labels, Plan, Role};
use super::status::{self, StepFailure};
use super::world::World;
use crate::names;
use crate::objects::{self, Desired, Kind, ObjectError};
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

/// What came of a plan.
#[derive(Debug)]
pub struct Acted {
    /// The status that was written, which claims nothing that was not done.
    pub status: KataConfigStatus,
    /// Why not all was done.
    pub failure: Option<ActError>,
}

/// Carries a plan out, in its order. A step that fails ends it, and the status says which; the next look goes on from what is there then.
///
/// # Errors
/// What the API server said when no status could be written: nothing was told.
pub async fn act(client: &Client, world: &World, plan: &Plan, now: Timestamp) -> Result<Acted, ActError> {
    let config = &world.config;
    let configs: Api<KataConfig> = Api::all(client.clone());
    if plan.finalizer == Finalizer::Add {
        reconciled::finalizer(&configs, config, KATACONFIG_FINALIZER, reconciled::Finalizer::There).await?;
    }
    let mut done = BTreeSet::new();
    let mut failure = steps(client, plan, &mut done).await.err();
    let status = match &failure {
        None => plan.status.clone(),
        Some(error) => status::failed(world, &plan.status, &StepFailure { what: text(error), done }, now),
    };
    if config.status.as_ref() != Some(&status)
        && let Err(error) = reconciled::status(&configs, config, &status).await
    {
        return Err(failure.unwrap_or(error.into()));
    }
    if failure.is_none() && plan.finalizer == Finalizer::Remove {
        let gone = reconciled::Finalizer::Gone;
        let removed = reconciled::finalizer(&configs, config, KATACONFIG_FINALIZER, gone).await;
        failure = removed.err().map(ActError::from);
    }
    Ok(Acted { status, failure })
}

/// The error with its causes, as people read it in a condition.
fn text(error: &ActError) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        // Its own text has the whole answer twice.
        let said = match error.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => status.message.clone(),
            _ => error.to_string(),
        };
        text = format!("{text}: {said}");
        cause = error.source();
    }
    text
}

/// The runtime classes that are as wanted are put into `classes`.
async fn steps(client: &Client, plan: &Plan, classes: &mut BTreeSet<String>) -> Result<(), ActError> {
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
        classes.extend(class(desired));
    }
    for object in &plan.delete {
        objects::remove(client, object).await?;
    }
    Ok(())
}

fn class(desired: &Desired) -> Option<String> {
    let object = &desired.object;
    (object.kind == Kind::RUNTIME_CLASS).then(|| object.name.clone())
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
