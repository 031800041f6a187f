//! What there is to be of the pods' webhook: all of it while there are peer pods, nothing else.

use serde_json::Value;

use super::removal;
use crate::kataconfig::build;
use crate::kataconfig::world::World;
use crate::objects::{Desired, ObjectRef, Removal};
use crate::settings::Settings;
use crate::webhook::configuration::{Setup, USER};
use crate::webhook::pods;

/// The objects to apply.
pub(super) fn objects(world: &World, settings: &Settings, owner: &Value) -> Vec<Desired> {
    let classes = settings.peer_pod_classes.iter().cloned().collect();
    let setup = Setup {
        namespace: settings.namespace.clone(),
        image: settings.image.clone(),
        pods: pods::Settings { classes, ..pods::Settings::default() },
        source: world.webhook.source.clone(),
        match_conditions: world.webhook.match_conditions,
        user: (!world.webhook.users_given).then_some(USER),
    };
    build::webhook(&setup).into_iter().map(|one| one.owned_by(owner)).collect()
}

/// Upstream's configuration, once ours does its work: both would change every pod. Until then it does no harm.
pub(super) fn replaced(world: &World) -> Vec<Removal> {
    let replaced = world.webhook.upstreams && world.webhook.trusted;
    replaced.then(build::upstreams_webhook).map(ObjectRef::in_any_case).into_iter().collect()
}

/// All that goes with peer pods, in this order. A Secret that somebody else made is theirs.
pub(super) fn superfluous(world: &World, settings: &Settings) -> Vec<Removal> {
    // It asks at a Service that goes with the rest.
    let upstreams = world.webhook.upstreams.then(build::upstreams_webhook);
    // The webhook makes it, and marks it in its own way.
    let certificate =
        (!world.webhook.foreign_secret).then(|| build::webhook_certificate(&settings.namespace));
    let objects = build::webhook_objects(&settings.namespace).into_iter();
    let objects = objects.map(|object| removal::by_rule(world, object));
    let known = ObjectRef::in_any_case;
    upstreams.map(known).into_iter().chain(objects).chain(certificate.map(known)).collect()
}
