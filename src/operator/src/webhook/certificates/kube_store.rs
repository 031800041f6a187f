//! The store at a real API server.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::store::{Configuration, Configured, Store, StoreError, Written};
use crate::watching;

/// Who owns `caBundle`: not whoever applies the rest of a configuration.
const FIELD_MANAGER: &str = "peerpods-webhook-certificate";

/// The API server.
pub struct KubeStore {
    secrets: Api<Secret>,
    mutating: Api<MutatingWebhookConfiguration>,
    validating: Api<ValidatingWebhookConfiguration>,
    namespace: String,
    name: String,
}

impl KubeStore {
    /// The Secret `name` in `namespace`, and all configurations.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            mutating: Api::all(client.clone()),
            validating: Api::all(client),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(kube::Error) -> StoreError {
        let object = format!("Secret {}/{}", self.namespace, self.name);
        move |source| StoreError { doing, object, source: Box::new(source) }
    }

    fn written(&self, doing: &'static str, result: kube::Result<Secret>) -> Result<Written, StoreError> {
        match result {
            Ok(_) => Ok(Written::Yes),
            // Gone since it was read, changed since, or made by another replica.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Written::NotFirst),
            Err(error) => Err(self.failed(doing)(error)),
        }
    }
}

#[async_trait]
impl Store for KubeStore {
    async fn read(&self) -> Result<Option<Secret>, StoreError> {
        self.secrets.get_opt(&self.name).await.map_err(self.failed("read"))
    }

    async fn create(&self, secret: Secret) -> Result<Written, StoreError> {
        self.written("create", self.secrets.create(&PostParams::default(), &secret).await)
    }

    async fn replace(&self, secret: Secret) -> Result<Written, StoreError> {
        self.written("replace", self.secrets.replace(&self.name, &PostParams::default(), &secret).await)
    }

    async fn configured(&self, of: &Configuration) -> Result<Option<Configured>, StoreError> {
        let failed = |source| StoreError { doing: "read", object: told(of), source: Box::new(source) };
        Ok(match of {
            Configuration::Mutating(name) => {
                let found = self.mutating.get_opt(name).await.map_err(failed)?;
                found.map(|found| {
                    let webhooks = found.webhooks.unwrap_or_default().into_iter();
                    configured(found.metadata, webhooks.map(|one| (one.name, one.client_config.ca_bundle)))
                })
            }
            Configuration::Validating(name) => {
                let found = self.validating.get_opt(name).await.map_err(failed)?;
                found.map(|found| {
                    let webhooks = found.webhooks.unwrap_or_default().into_iter();
                    configured(found.metadata, webhooks.map(|one| (one.name, one.client_config.ca_bundle)))
                })
            }
        })
    }

    async fn trust(&self, of: &Configuration, webhooks: &[String], bundle: &[u8]) -> Result<(), StoreError> {
        let applied = match of {
            Configuration::Mutating(name) => apply(&self.mutating, name, webhooks, bundle).await,
            Configuration::Validating(name) => apply(&self.validating, name, webhooks, bundle).await,
        };
        applied.map_err(|source| StoreError {
            doing: "apply the caBundle of",
            object: told(of),
            source: Box::new(source),
        })
    }

    /// One name at a time, which is what our roles allow.
    fn changes(&self, of: &[Configuration]) -> BoxStream<'static, ()> {
        let only = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let configurations = of.iter().map(|one| match one {
            Configuration::Mutating(name) => {
                watching::changes(self.mutating.clone(), only(name), ResourceExt::resource_version)
            }
            Configuration::Validating(name) => {
                watching::changes(self.validating.clone(), only(name), ResourceExt::resource_version)
            }
        });
        let secret = watching::changes(self.secrets.clone(), only(&self.name), ResourceExt::resource_version);
        stream::select_all(configurations.chain([secret])).boxed()
    }
}

fn told(configuration: &Configuration) -> String {
    match configuration {
        Configuration::Mutating(name) => format!("MutatingWebhookConfiguration {name}"),
        Configuration::Validating(name) => format!("ValidatingWebhookConfiguration {name}"),
    }
}

fn configured(
    metadata: ObjectMeta,
    webhooks: impl Iterator<Item = (String, Option<ByteString>)>,
) -> Configured {
    Configured {
        annotations: metadata.annotations.into_iter().flatten().map(|(key, _)| key).collect(),
        webhooks: webhooks.map(|(name, bundle)| (name, bundle.map(|bundle| bundle.0))).collect(),
    }
}

/// Applies the bundles alone. Webhooks are merged by their names, so that nothing else is touched.
async fn apply<K>(api: &Api<K>, name: &str, webhooks: &[String], bundle: &[u8]) -> kube::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let bundle = ByteString(bundle.to_vec());
    let one = |name: &String| json!({"name": name, "clientConfig": {"caBundle": bundle}});
    let webhooks: Vec<Value> = webhooks.iter().map(one).collect();
    let object = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name},
        "webhooks": webhooks,
    });
    api.patch(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(object)).await.map(drop)
}
