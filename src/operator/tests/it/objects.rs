//! Everything a cluster has, by discovery: no list of kinds that could lack one.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::discovery::{Discovery, verbs};
use kube::{Client, ResourceExt};
use peerpods_operator::deploy::rights::HOLDERS;

use crate::cluster::PATIENCE;

/// Kinds whose objects come and go by themselves.
const RESTLESS: [&str; 3] = ["events", "leases", "componentstatuses"];

/// Every object, with its kind. A kind whose definition goes meanwhile makes it look again.
async fn all(client: &Client) -> Vec<(ApiResource, DynamicObject)> {
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            match look(client).await {
                Ok(found) => return found,
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    });
    found.await.unwrap()
}

async fn look(client: &Client) -> kube::Result<Vec<(ApiResource, DynamicObject)>> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let mut found = Vec::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            if !capabilities.supports_operation(verbs::LIST) || RESTLESS.contains(&resource.plural.as_str()) {
                continue;
            }
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let list = api.list(&ListParams::default()).await?;
            found.extend(list.items.into_iter().map(|object| (resource.clone(), object)));
        }
    }
    Ok(found)
}

fn key(resource: &ApiResource, object: &DynamicObject) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!("{}.{} {namespace}/{}", resource.plural, resource.group, object.name_any())
}

/// The names of all objects; of nodes the labels and what they can hold as well.
pub(crate) async fn everything(client: &Client) -> Vec<String> {
    let mut found: Vec<String> = all(client)
        .await
        .iter()
        .map(|(resource, object)| {
            let more = match resource.plural.as_str() {
                "nodes" => format!(" {:?} {}", object.labels(), object.data["status"]["capacity"]),
                _ => String::new(),
            };
            key(resource, object) + &more
        })
        .collect();
    found.sort();
    found
}

/// The versions of all objects of kinds that the operator may write: the same later means that nobody wrote any.
pub(crate) async fn versions(client: &Client) -> BTreeMap<String, String> {
    let writes = |verb: &&str| !["get", "list", "watch"].contains(verb);
    let is_written = |resource: &ApiResource| {
        let rights = HOLDERS[0].rights.iter().filter(|right| right.verbs.iter().any(writes));
        let plural = |right: &str| right.split('/').next() == Some(resource.plural.as_str());
        rights.into_iter().any(|right| right.group == resource.group && plural(right.resource))
    };
    all(client)
        .await
        .iter()
        .filter(|(resource, _)| is_written(resource))
        .map(|(resource, object)| (key(resource, object), object.resource_version().unwrap_or_default()))
        .collect()
}
