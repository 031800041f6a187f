//! Which cloud VMs are at, and with which credentials: what the Secret and the ConfigMap of the node service say at the moment.
//!
//! How a provider is made of it is the binary's knowledge: here it is a closure.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::api::{Api, ListParams};
use peerpods_crds::PeerPodConfig;
use peerpods_podvm::ClusterId;
use peerpods_provider::Provider;

use crate::names;
use crate::peerpodconfig::configuration::PROVIDER;
use crate::peerpodconfig::observe::rank;

/// Why there is no provider.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// Something could not be read.
    #[error("cannot read {what}")]
    Read {
        /// What.
        what: String,
        /// What the API server said.
        source: kube::Error,
    },
    /// Nobody says which cloud it is.
    #[error(
        "neither Secret {secret} nor ConfigMap {config_map} of namespace {namespace} says CLOUD_PROVIDER, so there is no cloud to ask: \
         put the settings back until the VMs are gone"
    )]
    Unset {
        /// The Secret.
        secret: String,
        /// The ConfigMap.
        config_map: String,
        /// Of both.
        namespace: String,
    },
    /// What was read makes no provider.
    #[error("the cloud's settings in Secret {secret} and ConfigMap {config_map} cannot be used: {why}")]
    Settings {
        /// The Secret.
        secret: String,
        /// The ConfigMap.
        config_map: String,
        /// For people, with keys and no values.
        why: String,
    },
}

/// Variables as the node service gets them. Holds credentials, so it prints names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(pub BTreeMap<String, String>);

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A cloud with our VMs.
#[derive(Clone)]
pub struct Cloud {
    /// Who deletes them. `None` where only their own node can, as with VMs that run on it.
    pub provider: Option<Arc<dyn Provider>>,
    /// The owner of the VMs, where it was set by hand.
    pub cluster: Option<ClusterId>,
}

/// Makes a cloud of variables; says in an error what is wrong, without values.
pub type MakeCloud = Arc<dyn Fn(&Variables) -> Result<Cloud, String> + Send + Sync>;

/// The clouds of a cluster. A provider is made once for the same settings, and anew when they change.
#[derive(Clone)]
pub struct Clouds {
    client: Client,
    namespace: String,
    make: MakeCloud,
    made: Arc<Mutex<Option<(Variables, Cloud)>>>,
    last: Arc<Mutex<Option<Names>>>,
}

/// Where the settings are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Names {
    secret: String,
    config_map: String,
}

impl Clouds {
    /// With settings from Secrets and ConfigMaps of a namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str, make: MakeCloud) -> Self {
        Self { client, namespace: namespace.to_owned(), make, made: Arc::default(), last: Arc::default() }
    }

    /// The cloud as the settings are now.
    ///
    /// # Errors
    /// When they cannot be read, or make no provider.
    pub async fn now(&self) -> Result<Cloud, CloudError> {
        let (Names { secret, config_map }, variables) = self.settings().await?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, cloud)) = made.as_ref()
            && *of == variables
        {
            return Ok(cloud.clone());
        }
        let cloud =
            (self.make)(&variables).map_err(|why| CloudError::Settings { secret, config_map, why })?;
        *made = Some((variables, cloud.clone()));
        Ok(cloud)
    }

    /// The first settings that say which cloud it is.
    async fn settings(&self) -> Result<(Names, Variables), CloudError> {
        let mut asked = None;
        for names in self.names().await? {
            let variables = self.variables(&names.secret, &names.config_map).await?;
            if variables.0.get(PROVIDER).is_some_and(|provider| !provider.trim().is_empty()) {
                return Ok((names, variables));
            }
            asked.get_or_insert(names);
        }
        let Names { secret, config_map } = asked.unwrap_or_else(Names::fixed);
        Err(CloudError::Unset { secret, config_map, namespace: self.namespace.clone() })
    }

    /// The names that the PeerPodConfig gives. When it is gone already: those it gave last, then the fixed ones.
    async fn names(&self) -> Result<Vec<Names>, CloudError> {
        let configs: Api<PeerPodConfig> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = configs.list(&ListParams::default()).await.map_err(failed("PeerPodConfigs"))?;
        let first = found.items.into_iter().min_by_key(|config| rank(&config.metadata));
        let given = first.map(|config| Names {
            secret: config.spec.cloud_secret_name,
            config_map: config.spec.config_map_name,
        });
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(given) = given {
            *last = Some(given.clone());
            return Ok(vec![given]);
        }
        Ok(last.clone().into_iter().chain([Names::fixed()]).collect())
    }

    /// What is not there says nothing; in both, the ConfigMap's counts, as for the node service.
    async fn variables(&self, secret: &str, config_map: &str) -> Result<Variables, CloudError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = secrets.get_opt(secret).await.map_err(failed(format!("Secret {secret}")))?;
        let bytes = found.and_then(|secret| secret.data).unwrap_or_default().into_iter();
        let mut variables: BTreeMap<String, String> =
            bytes.map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned())).collect();
        let found = maps.get_opt(config_map).await.map_err(failed(format!("ConfigMap {config_map}")))?;
        variables.extend(found.and_then(|map| map.data).unwrap_or_default());
        Ok(Variables(variables))
    }
}

impl Names {
    fn fixed() -> Self {
        Self { secret: names::CLOUD_SECRET.to_owned(), config_map: names::CLOUD_CONFIG.to_owned() }
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(kube::Error) -> CloudError {
    let what = what.into();
    move |source| CloudError::Read { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        let variables = Variables([("AWS_SECRET_ACCESS_KEY".to_owned(), "hush".to_owned())].into());
        assert_eq!(format!("{variables:?}"), "{\"AWS_SECRET_ACCESS_KEY\"}");
    }
}
