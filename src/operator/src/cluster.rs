//! Which cluster this is: the id that every VM made for it is tagged with.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::{Client, ResourceExt};
use peerpods_podvm::ClusterId;

/// The namespace that every cluster has, and whose UID no two share.
const NAMESPACE: &str = "kube-system";

/// Why the cluster's id is not known.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// It could not be asked for.
    #[error("cannot read namespace {NAMESPACE}, whose UID is the cluster's id")]
    Read(#[source] kube::Error),
    /// It is none.
    #[error("namespace {NAMESPACE} has no UID that can be a cluster's id")]
    NoId,
}

/// The cluster's id: the UID of namespace `kube-system`.
///
/// # Errors
/// When it cannot be read.
pub async fn id(client: &Client) -> Result<ClusterId, ClusterError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let found = namespaces.get_metadata(NAMESPACE).await.map_err(ClusterError::Read)?;
    found.uid().and_then(|uid| uid.parse().ok()).ok_or(ClusterError::NoId)
}
