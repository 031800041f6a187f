//! The webhook as it runs in a pod: what a kubelet would start of the Deployment's pods, and what the operator runs itself.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use peerpods_operator::deploy::{OPERATOR, workload};
use peerpods_operator::names;
use peerpods_operator::webhook::certificates::keeper::Place;
use peerpods_operator::webhook::certificates::{CERTIFICATE_VARIABLE, Source};
use peerpods_operator::webhook::configuration::{CONFIGURATION, DEPLOYMENT, OPERATOR_SERVICE, SERVICE};
use peerpods_operator::webhook::pods::Settings;
use peerpods_operator::webhook::role::Role;
use peerpods_operator::webhook::server::Limits;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, until};

/// A running webhook. It ends when it is dropped.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Process {
    pub(crate) async fn start(role: Role) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let until = shutdown.clone();
        let running = tokio::spawn(async move { role.run(listener, until).await.unwrap() });
        Self { address, shutdown, running }
    }

    /// Ends in good order.
    pub(crate) async fn end(mut self) {
        self.shutdown.cancel();
        (&mut self.running).await.unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.running.abort();
    }
}

pub(crate) fn limits() -> Limits {
    Limits { linger: Duration::from_millis(50), drain: Duration::from_millis(500), ..Limits::default() }
}

impl Cluster {
    /// One pod of the webhook's Deployment, as its spec and its account have it; the API server knows and trusts it.
    pub(crate) async fn webhook(&self) -> Process {
        let process = self.untrusted_webhook().await;
        until("the API server trusts the pods' webhook", || self.trusts_pods_webhook()).await;
        self.in_force().await;
        process
    }

    async fn untrusted_webhook(&self) -> Process {
        let deployments = self.operators::<Deployment>();
        until("the Deployment", || async { deployments.get_opt(DEPLOYMENT).await.unwrap().is_some() }).await;
        let pod = deployments.get(DEPLOYMENT).await.unwrap().spec.unwrap().template.spec.unwrap();
        let variables = pod.containers[0].env.clone().unwrap();
        let variable = |name: &str| variables.iter().find(|one| one.name == name)?.value.clone();
        assert_eq!(variable("PEERPODS_NAMESPACE").as_deref(), Some(names::NAMESPACE));
        let settings = Settings::from_variables(variable).unwrap();
        let source: Source = variable(CERTIFICATE_VARIABLE).unwrap_or_default().parse().unwrap();
        let client = self.place.client_as(&pod.service_account_name.unwrap_or_default()).await;
        let place = Place::of_pods(names::NAMESPACE, source);
        let process = Process::start(Role::new(&client, place, settings, limits()).unwrap()).await;
        self.place.route(SERVICE, process.address).await;
        process
    }

    /// The operator's own webhook, with the rights that it is installed with.
    pub(crate) async fn operators_webhook(&self) -> Process {
        self.install_operators_webhook().await;
        let place = Place::of_operator(names::NAMESPACE, Source::Own);
        let client = self.place.client_as(OPERATOR).await;
        let role = Role::new(&client, place, Settings::default(), limits()).unwrap();
        let process = Process::start(role).await;
        self.place.route(OPERATOR_SERVICE, process.address).await;
        until("the API server trusts the operator's webhook", || self.trusts_operators_webhook()).await;
        self.in_force().await;
        process
    }

    /// Both in one process.
    pub(crate) async fn both_webhooks(&self, client: &Client) -> Process {
        self.install_operators_webhook().await;
        let place = |of: fn(&str, Source) -> Place| of(names::NAMESPACE, Source::Own);
        let (first, more) = (place(Place::of_operator), vec![place(Place::of_pods)]);
        let process =
            Process::start(Role::of(client, first, more, Settings::default(), limits()).unwrap()).await;
        for service in [OPERATOR_SERVICE, SERVICE] {
            self.place.route(service, process.address).await;
        }
        until("the API server trusts both", || async {
            self.trusts_operators_webhook().await && self.trusts_pods_webhook().await
        })
        .await;
        self.in_force().await;
        process
    }

    /// Lets a change of a configuration come into force: a real server hears of its own changes a moment later.
    pub(crate) async fn in_force(&self) {
        if self.place.server().is_none() {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }

    /// What `deploy/` has for it: a Service, and what has the API server ask.
    async fn install_operators_webhook(&self) {
        let services = workload::operator().into_iter().filter(|object| object["kind"] == "Service");
        for object in services.chain([workload::asking()]) {
            self.apply(object).await;
        }
    }

    pub(crate) async fn trusts_pods_webhook(&self) -> bool {
        let found = self.all::<MutatingWebhookConfiguration>().get_opt(CONFIGURATION).await.unwrap();
        let mut webhooks = found.into_iter().flat_map(|one| one.webhooks.unwrap_or_default());
        webhooks.next().is_some_and(|one| one.client_config.ca_bundle.is_some())
    }

    async fn trusts_operators_webhook(&self) -> bool {
        let found = self.all::<ValidatingWebhookConfiguration>().get_opt(CONFIGURATION).await.unwrap();
        let webhooks: Vec<_> = found.into_iter().flat_map(|one| one.webhooks.unwrap_or_default()).collect();
        webhooks.len() == 2 && webhooks.iter().all(|one| one.client_config.ca_bundle.is_some())
    }
}
