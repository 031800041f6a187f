//! Where a test runs: an API server of its own in this process, or, with `PEERPODS_TEST_CLUSTER=1`, the cluster of `KUBECONFIG`. There tests
//! take turns, because what the operator makes has fixed names, and each takes away what it made ([`crate::tidy`]).

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use kube::config::AuthInfo;
use kube::{Client, Config};
use peerpods_operator::names;
use peerpods_test_apiserver::Server;
use peerpods_test_require::{Need, require, skip};
use tokio::process::Command;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{strangers, tidy};

/// A program of the cluster's owner that is called with `stop` and `start` (the API server), `compact` (the store), and
/// `route NAMESPACE/SERVICE ADDRESS` (where the API server is to find a Service that this process answers for).
const PROGRAM: &str = "PEERPODS_TEST_CLUSTER_PROGRAM";
/// For how many seconds the API server is away where a test waits for it.
const AWAY: &str = "PEERPODS_TEST_AWAY_SECONDS";

static TURN: LazyLock<Arc<Mutex<()>>> = LazyLock::new(Arc::default);

pub(crate) enum Place {
    /// An API server of our own.
    Own(Server),
    /// Somebody's cluster, which nobody else of this program uses meanwhile.
    Real { _turn: OwnedMutexGuard<()> },
}

/// Whether tests run in a real cluster.
pub(crate) fn is_real() -> bool {
    std::env::var("PEERPODS_TEST_CLUSTER").is_ok_and(|value| value == "1")
}

/// A client of the cluster of `KUBECONFIG`.
pub(crate) async fn real_client() -> Client {
    // Another part of the program may have chosen already: its choice is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::try_default().await.unwrap()
}

/// Whether a test has an API server of its own, for what no real one does. Else says that it does not run.
pub(crate) fn has_own_server(test: &str, why: &str) -> bool {
    if is_real() {
        skip(test, why);
    }
    !is_real()
}

/// Whether the API server can be taken away for a while. Else says that the test does not run.
pub(crate) fn can_be_away(test: &str) -> bool {
    !is_real() || require(test, &[Need::Setting(PROGRAM, "what stops and starts the API server")])
}

/// Whether the API server can ask webhooks of this process. Else says that the test does not run.
pub(crate) fn reaches_us(test: &str) -> bool {
    !is_real()
        || require(test, &[Need::Setting(PROGRAM, "what leads the API server to a webhook of this process")])
}

/// For how long the API server is to be away in the test that waits for it to be back.
pub(crate) fn away() -> Duration {
    let seconds = std::env::var(AWAY).ok().map(|seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(6))
}

impl Place {
    pub(crate) async fn open() -> Self {
        if !is_real() {
            return Self::Own(Server::start().await.unwrap());
        }
        let turn = TURN.clone().lock_owned().await;
        let client = real_client().await;
        strangers::refuse(&client).await;
        tidy::tidy(&client).await;
        Self::Real { _turn: turn }
    }

    /// One that may do everything.
    pub(crate) async fn client(&self) -> Client {
        match self {
            Self::Own(server) => server.client("test").unwrap(),
            Self::Real { .. } => real_client().await,
        }
    }

    /// One that may do what an account of ours may.
    pub(crate) async fn client_as(&self, account: &str) -> Client {
        if let Self::Own(server) = self {
            return server.client_as(names::NAMESPACE, account).unwrap();
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await, names::NAMESPACE);
        let spec = TokenRequestSpec { expiration_seconds: Some(7200), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        let mut config = Config::infer().await.unwrap();
        config.auth_info =
            AuthInfo { token: Some(answer.status.unwrap().token.into()), ..AuthInfo::default() };
        Client::try_from(config).unwrap()
    }

    /// None in a real cluster.
    pub(crate) fn server(&self) -> Option<&Server> {
        match self {
            Self::Own(server) => Some(server),
            Self::Real { .. } => None,
        }
    }

    /// The API server goes away.
    pub(crate) async fn stop(&self) {
        match self {
            Self::Own(server) => server.stop().await,
            Self::Real { .. } => call(&["stop"]).await,
        }
    }

    /// It comes back, with the objects that it had.
    pub(crate) async fn start(&self) {
        match self {
            Self::Own(server) => server.serve_again().unwrap(),
            Self::Real { .. } => call(&["start"]).await,
        }
    }

    /// It forgets what it could have told of the time before.
    pub(crate) async fn compact(&self) {
        match self {
            Self::Own(server) => server.compact(),
            Self::Real { .. } => call(&["compact"]).await,
        }
    }

    /// The API server finds one of our Services at an address of this process.
    pub(crate) async fn route(&self, service: &str, address: SocketAddr) {
        match self {
            Self::Own(server) => server.resolve_service(names::NAMESPACE, service, address),
            Self::Real { .. } => {
                let service = format!("{}/{service}", names::NAMESPACE);
                call(&["route", &service, &address.to_string()]).await;
            }
        }
    }
}

async fn call(what: &[&str]) {
    let program = std::env::var(PROGRAM).unwrap();
    assert!(Command::new(&program).args(what).status().await.unwrap().success(), "{program} {what:?}");
}
