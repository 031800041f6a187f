//! The pods' webhook: what [`configuration`] builds, as objects to apply, and in which order they come and go.

use crate::objects::{Desired, Kind, ObjectRef};
use crate::webhook::configuration::{
    self, Access, CERTIFICATE_SECRET, CONFIGURATION, DEPLOYMENT, SERVICE, Setup, UPSTREAMS,
};

/// The objects, in the order in which they are applied: who is started has its rights already, and is asked last.
#[must_use]
pub fn webhook(setup: &Setup) -> Vec<Desired> {
    let here = |kind, name| ObjectRef::namespaced(kind, &setup.namespace, name);
    let everywhere = |kind, name| ObjectRef::cluster(kind, name);
    let Access { account, role, role_binding, cluster_role, cluster_role_binding } =
        configuration::access(setup);
    vec![
        Desired::of(here(Kind::SERVICE_ACCOUNT, DEPLOYMENT), &account),
        Desired::of(here(Kind::ROLE, DEPLOYMENT), &role),
        Desired::of(here(Kind::ROLE_BINDING, DEPLOYMENT), &role_binding),
        Desired::of(everywhere(Kind::CLUSTER_ROLE, DEPLOYMENT), &cluster_role),
        Desired::of(everywhere(Kind::CLUSTER_ROLE_BINDING, DEPLOYMENT), &cluster_role_binding),
        Desired::of(here(Kind::SERVICE, SERVICE), &configuration::service(setup)),
        Desired::of(here(Kind::DEPLOYMENT, DEPLOYMENT), &configuration::deployment(setup)),
        Desired::of(here(Kind::DISRUPTION_BUDGET, DEPLOYMENT), &configuration::disruption_budget(setup)),
        Desired::of(everywhere(Kind::MUTATING_WEBHOOKS, CONFIGURATION), &configuration::mutating(setup)),
    ]
}

/// The objects, in the order in which they are deleted: nobody is asked who is going, and who has no rights any more makes no certificate
/// anew when the Secret is gone.
#[must_use]
pub fn webhook_objects(namespace: &str) -> Vec<ObjectRef> {
    let here = |kind, name| ObjectRef::namespaced(kind, namespace, name);
    vec![
        ObjectRef::cluster(Kind::MUTATING_WEBHOOKS, CONFIGURATION),
        here(Kind::DEPLOYMENT, DEPLOYMENT),
        here(Kind::DISRUPTION_BUDGET, DEPLOYMENT),
        here(Kind::SERVICE, SERVICE),
        ObjectRef::cluster(Kind::CLUSTER_ROLE_BINDING, DEPLOYMENT),
        ObjectRef::cluster(Kind::CLUSTER_ROLE, DEPLOYMENT),
        here(Kind::ROLE_BINDING, DEPLOYMENT),
        here(Kind::ROLE, DEPLOYMENT),
        here(Kind::SERVICE_ACCOUNT, DEPLOYMENT),
    ]
}

/// The Secret with the certificate, which the webhook itself makes.
#[must_use]
pub fn webhook_certificate(namespace: &str) -> ObjectRef {
    ObjectRef::namespaced(Kind::SECRET, namespace, CERTIFICATE_SECRET)
}

/// The configuration of upstream's operator, when that is what it is.
#[must_use]
pub fn upstreams_webhook() -> ObjectRef {
    ObjectRef::cluster(Kind::MUTATING_WEBHOOKS, UPSTREAMS)
}
