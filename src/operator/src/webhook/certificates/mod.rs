//! The webhooks' own certificate: made, kept in a Secret, rotated long before it ends, and the API server told whom to trust.
//!
//! ```text
//! (no Secret) --Make--> serving --Stage--> serving + next --Promote--> serving, old authority still trusted --Forget--> serving
//!                 a third of its life left      trusted by every configuration          the old authority has ended
//! ```
//!
//! Every certificate has an authority of its own, whose key is thrown away when it has signed: there is no key to be stolen that could sign
//! another. So a rotation changes the authority, in an order that never fails a call: the new authority is trusted beside the old one
//! (`caBundle` holds both) before anybody shows the new certificate, and the old one stays trusted until its certificate has ended and
//! nobody can show it any more, whatever a replica missed meanwhile.
//!
//! All replicas do the same and agree by the Secret: creating it, only one wins, and a change is refused when another was first. Whoever
//! loses reads again. A Secret that is not ours (OpenShift's service-ca, cert-manager, an administrator) is read and never written, and a
//! `caBundle` that somebody else injects is left to them.
//!
//! Keys are never printed. The API server's and the Secret's side is behind [`Store`].

pub mod decide;
pub mod held;
pub mod keeper;
mod kube_store;
pub mod make;
pub mod serving;
mod shown;
mod source;
pub mod store;

pub use decide::{State, Step, decide};
pub use held::{Held, Pair};
pub use keeper::{Keeper, KeeperError};
pub use kube_store::KubeStore;
pub use serving::Serving;
pub use shown::Shown;
pub use source::{CERTIFICATE_VARIABLE, Source, SourceError};
pub use store::{Configuration, Configured, Store, StoreError, Written};

/// Marks Secrets that are ours to write.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "peerpods");
/// How OpenShift's service-ca marks the Secrets it makes (a prefix), and the request to inject a bundle.
pub const SERVICE_CA_MARK: &str = "service.beta.openshift.io/originating-service-";
/// The older spelling of the same.
pub const SERVICE_CA_MARK_OLD: &str = "service.alpha.openshift.io/originating-service-";
/// Asks service-ca for a Secret with a certificate; stands at a Service.
pub const SERVICE_CA_REQUEST: &str = "service.beta.openshift.io/serving-cert-secret-name";
/// Asks service-ca to inject its bundle into a configuration.
pub const SERVICE_CA_INJECT: &str = "service.beta.openshift.io/inject-cabundle";
/// How cert-manager marks the Secrets it makes.
pub const CERT_MANAGER_MARK: &str = "cert-manager.io/certificate-name";
/// Asks cert-manager to inject a certificate's authority into a configuration; also the beginning of `…-from-secret`.
pub const CERT_MANAGER_INJECT: &str = "cert-manager.io/inject-ca-from";

/// The names a Service is called by, the one the API server uses first.
#[must_use]
pub fn names_of(service: &str, namespace: &str) -> Vec<String> {
    let base = format!("{service}.{namespace}.svc");
    vec![base.clone(), format!("{base}.cluster.local"), format!("{service}.{namespace}"), service.to_owned()]
}

#[cfg(test)]
mod fake_store;
#[cfg(test)]
mod tests;
