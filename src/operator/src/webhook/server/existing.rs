//! Which of our configuration objects there are, from the API server itself: a cache could be behind by just the one that matters.

use std::fmt::Debug;

use async_trait::async_trait;
use kube::api::{Api, ListParams};
use kube::{Client, Resource, ResourceExt as _};
use peerpods_crds::{KataConfig, PeerPodConfig};
use serde::de::DeserializeOwned;

use super::super::kataconfigs::Existing;

/// Knows which configuration objects there are.
#[async_trait]
pub trait Configs: Send + Sync {
    /// The operator's namespace, in which a `PeerPodConfig` counts.
    fn namespace(&self) -> &str;

    /// All `KataConfig`s, now.
    ///
    /// # Errors
    /// Why nobody can say, for people.
    async fn kataconfigs(&self) -> Result<Vec<Existing>, String>;

    /// All `PeerPodConfig`s of the operator's namespace, now.
    ///
    /// # Errors
    /// Why nobody can say, for people.
    async fn peerpodconfigs(&self) -> Result<Vec<Existing>, String>;
}

/// The API server.
pub struct KubeConfigs {
    client: Client,
    namespace: String,
}

impl KubeConfigs {
    /// Asks with `client`; the operator is in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }
}

#[async_trait]
impl Configs for KubeConfigs {
    fn namespace(&self) -> &str {
        &self.namespace
    }

    async fn kataconfigs(&self) -> Result<Vec<Existing>, String> {
        existing(&Api::<KataConfig>::all(self.client.clone())).await
    }

    async fn peerpodconfigs(&self) -> Result<Vec<Existing>, String> {
        existing(&Api::<PeerPodConfig>::namespaced(self.client.clone(), &self.namespace)).await
    }
}

/// Reads names only, so that one whose content nobody understands counts as well.
async fn existing<K>(api: &Api<K>) -> Result<Vec<Existing>, String>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let list = api.list_metadata(&ListParams::default()).await.map_err(|error| error.to_string())?;
    let one = |object: kube::core::PartialObjectMeta<K>| Existing {
        being_deleted: object.metadata.deletion_timestamp.is_some(),
        name: object.name_any(),
    };
    Ok(list.items.into_iter().map(one).collect())
}
