//! The cluster this process is part of: how its API server is reached, and by which id the cluster's VMs are known.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::Api;
use kube::config::{InClusterError, InferConfigError};
use peerpods_operator::cluster;
use peerpods_podvm::ClusterId;
use tokio::time::sleep;

use crate::config::Kubernetes;

/// Where a node's service keeps the cluster's id; the node service reads it there.
const ID_FILE: &str = "cluster-id";
/// An API server that is silent for so long has gone without a word. Watches are not: they end before.
const SILENCE: Duration = Duration::from_secs(300);
/// Until the next question for it.
const AGAIN: Duration = Duration::from_secs(5);

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// This is no pod, and there is no kubeconfig.
    #[error("no cluster: this is no pod of one, and neither KUBECONFIG nor ~/.kube/config says where it is")]
    Nowhere(#[source] InferConfigError),
    /// This is a pod whose account cannot be read.
    #[error("this is a pod whose service account cannot be read; --kubernetes off does without a cluster")]
    Account(#[source] InClusterError),
    /// The client cannot be made.
    #[error("cannot talk to the cluster's API server")]
    Client(#[source] kube::Error),
}

/// A client of the cluster, where there is to be one. Nothing is asked yet.
///
/// # Errors
/// When there has to be one and nobody says where.
pub async fn client(mode: Kubernetes) -> Result<Option<Client>, ClusterError> {
    match mode {
        Kubernetes::Off => Ok(None),
        Kubernetes::On => anywhere().await.map(Some),
        Kubernetes::Auto => match kube::Config::incluster() {
            Ok(config) => client_of(config).map(Some),
            // No pod: its variables are not there.
            Err(InClusterError::ReadEnvironmentVariable(_)) => Ok(None),
            Err(error) => Err(ClusterError::Account(error)),
        },
    }
}

/// A client of the cluster that this is a pod of, or that a kubeconfig names.
///
/// # Errors
/// When nobody says where it is.
pub async fn anywhere() -> Result<Client, ClusterError> {
    client_of(kube::Config::infer().await.map_err(ClusterError::Nowhere)?)
}

fn client_of(mut config: kube::Config) -> Result<Client, ClusterError> {
    config.read_timeout = Some(SILENCE);
    Client::try_from(config).map_err(ClusterError::Client)
}

/// Has the node service know the cluster's id: asks for it until it is known, and keeps it, so that a service that comes back while the
/// API server is away knows it still. A node that was part of no cluster keeps the id that its VMs have.
///
/// # Errors
/// When it cannot be kept.
pub async fn remember_id(client: &Client, state_dir: &Path) -> io::Result<()> {
    let file = state_dir.join(ID_FILE);
    if tokio::fs::try_exists(&file).await? {
        return Ok(());
    }
    let id = loop {
        match cluster::id(client).await {
            Ok(id) => break id,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot know the cluster's id yet; asked again in {AGAIN:?}"
                );
                sleep(AGAIN).await;
            }
        }
    };
    keep(&file, &id)
}

/// Resolves when the cluster said twice that it has no node of this name, and never else: an API server that is away says nothing.
pub fn no_such_node(client: Client, node: &str) -> BoxFuture<'static, ()> {
    let node = node.to_owned();
    async move {
        let nodes: Api<Node> = Api::all(client);
        let mut missed = false;
        loop {
            match nodes.get_metadata_opt(&node).await {
                Ok(Some(_)) => return std::future::pending().await,
                // A node that is just being made.
                Ok(None) if missed => return,
                Ok(None) => missed = true,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(
                        error,
                        node,
                        "cannot see whether the cluster has this node; asked again in {AGAIN:?}"
                    );
                }
            }
            sleep(AGAIN).await;
        }
    }
    .boxed()
}

fn keep(file: &Path, id: &ClusterId) -> io::Result<()> {
    if let Some(dir) = file.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let temporary = file.with_extension("new");
    std::fs::write(&temporary, format!("{id}\n"))?;
    std::fs::File::open(&temporary)?.sync_all()?;
    std::fs::rename(&temporary, file)
}

#[cfg(test)]
mod tests {
    use kube::api::PostParams;
    use peerpods_test_apiserver::Server;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_node_that_the_cluster_does_not_know_is_told_of_and_one_that_it_knows_is_not() {
        let server = Server::start().await.unwrap();
        let client = server.client("test").unwrap();
        let node = serde_json::from_value(serde_json::json!({ "metadata": { "name": "n1" } })).unwrap();
        Api::<Node>::all(client.clone()).create(&PostParams::default(), &node).await.unwrap();
        let within = |node| timeout(2 * AGAIN, no_such_node(client.clone(), node));
        let (known, unknown) = tokio::join!(within("n1"), within("n2"));
        assert!(known.is_err() && unknown.is_ok());
    }

    #[test]
    fn the_id_is_kept_where_the_node_service_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state").join(ID_FILE);
        keep(&file, &"c-1".parse().unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "c-1\n");
        let left: Vec<_> = std::fs::read_dir(file.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "something temporary is left");
    }
}
