//! `PeerPodConfig`: one, in the operator's namespace, with a limit that is a number, and names and labels that can be ones. As for
//! `KataConfig`, one that is being deleted passes.

use peerpods_crds::PeerPodConfigSpec;

use super::faults::{Fault, shown};
use super::kataconfigs::{Existing, Verdict, label_faults};
use super::names;
use super::review::{Asked, Operation};
use super::stored::{Stored, new_faults};

/// Digits that a limit may have; the definition says the same.
const LIMIT_DIGITS: usize = 6;

/// Decides about a `PeerPodConfig`, knowing those that exist in the operator's namespace.
#[must_use]
pub fn decide(asked: &Asked<Stored>, namespace: &str, existing: &[Existing]) -> Verdict {
    let Some(object) = asked.object.as_ref().filter(|_| asked.request.sub_resource.is_none()) else {
        return Verdict::Allowed;
    };
    match asked.request.operation {
        Operation::Create => match elsewhere(asked.request.namespace.as_deref(), namespace) {
            Some(fault) => Verdict::Invalid(vec![fault]),
            // A KataConfig's own stands by where an older one is: refused, all else that the KataConfig brings would wait for it.
            None if asked.request.name == crate::names::PEER_POD_CONFIG => Verdict::of(faults(object)),
            None => Verdict::of_new(asked, existing, || faults(object)),
        },
        Operation::Update if !object.is_being_deleted() => {
            let before = asked.old_object.as_ref().map(faults).unwrap_or_default();
            Verdict::of(new_faults(faults(object), &before))
        }
        Operation::Update | Operation::Delete | Operation::Connect => Verdict::Allowed,
    }
}

/// Nobody looks at one of another namespace.
fn elsewhere(its: Option<&str>, operators: &str) -> Option<Fault> {
    let its = its.filter(|its| *its != operators)?;
    let reason = format!(
        "{}: want {operators}, the operator's namespace: a PeerPodConfig elsewhere does nothing",
        shown(its)
    );
    Some(Fault::new("metadata.namespace", reason))
}

fn faults(object: &Stored) -> Vec<Fault> {
    match object.spec() {
        Ok(spec) => spec_faults(&spec),
        Err(unreadable) => vec![unreadable],
    }
}

/// All that is wrong with a spec.
#[must_use]
pub fn spec_faults(spec: &PeerPodConfigSpec) -> Vec<Fault> {
    let mut faults = Vec::new();
    let names =
        [("spec.cloudSecretName", &spec.cloud_secret_name), ("spec.configMapName", &spec.config_map_name)];
    for (field, name) in names {
        if let Err(wanted) = names::subdomain(name) {
            faults.push(Fault::new(field, format!("{}: {wanted}", shown(name))));
        }
    }
    if !(1..=LIMIT_DIGITS).contains(&spec.limit.len()) || !spec.limit.bytes().all(|c| c.is_ascii_digit()) {
        let reason = format!(
            "{}: want how many VMs each node may have, a whole number from 0 to 999999, as in \"10\"",
            shown(&spec.limit)
        );
        faults.push(Fault::new("spec.limit", reason));
    }
    for (key, value) in &spec.node_selector {
        faults.extend(label_faults("spec.nodeSelector", key, value));
    }
    faults
}

#[cfg(test)]
mod tests;
