//! Carries a plan out. No decisions but one: what is so already is not written again.

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use peerpods_crds::{KATACONFIG_FINALIZER, KataConfig};
use serde_json::{Value, json};

use super::decide::{Finalizer, Plan, Role};
use crate::names;
use crate::objects::{self, ObjectError};

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
    #[error("cannot write the {part} of KataConfig {name}")]
    Config {
        /// Which part.
        part: &'static str,
        /// Its name.
        name: String,
        /// What the API server said.
        source: kube::Error,
    },
}

/// Carries a plan out, in its order. A step that fails ends it; the next look goes on from what is there then.
///
/// # Errors
/// What the API server said, with the object. The status is written all the same, so that what is known is seen.
pub async fn act(client: &Client, config: &KataConfig, plan: &Plan) -> Result<(), ActError> {
    if plan.finalizer == Finalizer::Add {
        finalizer(client, config, true).await?;
    }
    let done = steps(client, plan).await;
    status(client, config, plan).await?;
    done?;
    if plan.finalizer == Finalizer::Remove {
        finalizer(client, config, false).await?;
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

/// Our finalizer alone: the version makes sure that nobody else's is lost.
async fn finalizer(client: &Client, config: &KataConfig, wanted: bool) -> Result<(), ActError> {
    let has = config.finalizers().iter().any(|name| name == KATACONFIG_FINALIZER);
    if has == wanted {
        return Ok(());
    }
    let others = config.finalizers().iter().filter(|name| *name != KATACONFIG_FINALIZER);
    let all: Vec<&str> = others.map(String::as_str).chain(wanted.then_some(KATACONFIG_FINALIZER)).collect();
    let configs: Api<KataConfig> = Api::all(client.clone());
    // The status was written meanwhile, so the version is of now; the finalizers are compared by it.
    let Some(now) =
        configs.get_metadata_opt(&config.name_any()).await.map_err(failed("finalizers", config))?
    else {
        return Ok(());
    };
    if now.uid() != config.uid() || now.finalizers() != config.finalizers() {
        return Ok(());
    }
    let patch = json!({ "metadata": { "finalizers": all, "resourceVersion": now.resource_version() } });
    match configs.patch(&config.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        done => done.map(drop).map_err(failed("finalizers", config)),
    }
}

async fn status(client: &Client, config: &KataConfig, plan: &Plan) -> Result<(), ActError> {
    if config.status.as_ref() == Some(&plan.status) {
        return Ok(());
    }
    let configs: Api<KataConfig> = Api::all(client.clone());
    // Whole: fields that are no longer there must go. The uid keeps it from another object of the same name.
    let patch = json!([
        { "op": "test", "path": "/metadata/uid", "value": config.uid() },
        { "op": "add", "path": "/status", "value": plan.status },
    ]);
    let patch: json_patch::Patch =
        serde_json::from_value(patch).map_err(kube::Error::SerdeError).map_err(failed("status", config))?;
    match configs.patch_status(&config.name_any(), &PatchParams::default(), &Patch::Json::<()>(patch)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        done => done.map(drop).map_err(failed("status", config)),
    }
}

fn failed(part: &'static str, config: &KataConfig) -> impl FnOnce(kube::Error) -> ActError {
    let name = config.name_any();
    move |source| ActError::Config { part, name, source }
}
