//! Which `KataConfig`s there are, from the API server itself: a cache could be behind by just the one that matters.

use async_trait::async_trait;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use peerpods_crds::KataConfig;

use super::super::kataconfigs::Existing;

/// Knows which `KataConfig`s there are.
#[async_trait]
pub trait KataConfigs: Send + Sync {
    /// All of them, now.
    ///
    /// # Errors
    /// Why nobody can say, for people.
    async fn existing(&self) -> Result<Vec<Existing>, String>;
}

/// The API server.
pub struct KubeKataConfigs(Api<KataConfig>);

impl KubeKataConfigs {
    /// Asks with `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self(Api::all(client))
    }
}

#[async_trait]
impl KataConfigs for KubeKataConfigs {
    /// Reads names only, so that one whose content nobody understands counts as well.
    async fn existing(&self) -> Result<Vec<Existing>, String> {
        let list = self.0.list_metadata(&ListParams::default()).await.map_err(|error| error.to_string())?;
        let one = |object: kube::core::PartialObjectMeta<KataConfig>| Existing {
            being_deleted: object.metadata.deletion_timestamp.is_some(),
            name: object.name_any(),
        };
        Ok(list.items.into_iter().map(one).collect())
    }
}
