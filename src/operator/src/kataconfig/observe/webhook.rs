//! Reads what the pods' webhook is made for, and what there is of it.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;

use super::{ObserveError, failed};
use crate::kataconfig::world::PodWebhook;
use crate::settings::Settings;
use crate::webhook::certificates::{Source, State, held};
use crate::webhook::configuration::{
    CERTIFICATE_SECRET, CONFIGURATION, MatchConditions, UPSTREAMS, is_upstreams,
};

/// The API group of OpenShift's own operators, service-ca's among them.
const OPENSHIFTS_OPERATORS: &str = "operator.openshift.io";
/// The API group of the constraints by which OpenShift gives pods their users.
const OPENSHIFTS_SECURITY: &str = "security.openshift.io";

pub(super) async fn webhook(client: &Client, settings: &Settings) -> Result<PodWebhook, ObserveError> {
    let version = client.apiserver_version().await.map_err(failed("the version of the API server"))?;
    let groups = client.list_api_groups().await.map_err(failed("the API groups"))?;
    let has = |name: &str| groups.groups.iter().any(|group| group.name == name);
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let of = async |name| configurations.get_opt(name).await.map_err(failed("the webhook configurations"));
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &settings.namespace);
    let secret = secrets.get_opt(CERTIFICATE_SECRET).await.map_err(failed("the webhook's certificate"))?;
    Ok(PodWebhook {
        match_conditions: MatchConditions::of(&version.major, &version.minor),
        source: if has(OPENSHIFTS_OPERATORS) { Source::ServiceCa } else { Source::Own },
        users_given: has(OPENSHIFTS_SECURITY),
        trusted: of(CONFIGURATION).await?.as_ref().is_some_and(is_trusted),
        upstreams: of(UPSTREAMS).await?.as_ref().is_some_and(is_upstreams),
        foreign_secret: matches!(held::state_of(secret.as_ref()), State::Foreign),
    })
}

fn is_trusted(configuration: &MutatingWebhookConfiguration) -> bool {
    let mut webhooks = configuration.webhooks.iter().flatten().peekable();
    let bundle = |bundle: &k8s_openapi::ByteString| !bundle.0.is_empty();
    webhooks.peek().is_some() && webhooks.all(|one| one.client_config.ca_bundle.as_ref().is_some_and(bundle))
}
