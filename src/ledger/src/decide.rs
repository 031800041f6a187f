//! What a PeerPod is to be like, and what is to be done to make it so. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::ResourceExt;
use peerpods_crds::{PEERPOD_FINALIZER, PeerPod, PeerPodSpec};
use peerpods_provider::VmKey;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The label by which a PeerPod is found when nobody remembers whose it is. Its value is [`tag`].
pub(crate) const LABEL: &str = "peerpods.io/vm";
/// As many characters as a name may have, less those that we add.
const POD_PART: usize = 230;

/// A pod with a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where its VM is.
    pub location: Option<String>,
    /// When its sandbox was asked for.
    pub since: Option<MicroTime>,
}

/// What the cluster is to know of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// That it is a pod's.
    Owned {
        /// The pod.
        pod: Pod,
        /// The provider's id, when there is one.
        instance: Option<String>,
    },
    /// Nothing.
    Gone {
        /// The pod it was of, when that is known.
        pod: Option<Pod>,
    },
}

/// One thing to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// It is as wanted.
    Nothing,
    /// There is none: it is created, for an owner that is asked for first.
    Create,
    /// These fields are changed.
    Patch(Value),
}

/// What brings a VM's PeerPod to be as wanted. One that is being deleted is the operator's already.
#[must_use]
pub(crate) fn decide(found: Option<&PeerPod>, instance: Option<&str>) -> Step {
    let Some(found) = found else { return Step::Create };
    if found.metadata.deletion_timestamp.is_some() {
        return Step::Nothing;
    }
    let mut patch = json!({});
    if !found.finalizers().iter().any(|one| one == PEERPOD_FINALIZER) {
        let all = found.finalizers().iter().map(String::as_str).chain([PEERPOD_FINALIZER]);
        patch["metadata"] =
            json!({ "finalizers": all.collect::<Vec<_>>(), "resourceVersion": found.resource_version() });
    }
    if let Some(id) = instance.filter(|id| *id != found.spec.instance_id) {
        patch["spec"] = json!({ "instanceID": id });
    }
    if patch == json!({}) { Step::Nothing } else { Step::Patch(patch) }
}

/// A PeerPod as it is created.
#[must_use]
pub(crate) fn created(key: &VmKey, pod: &Pod, owner: OwnerReference, spec: PeerPodSpec) -> PeerPod {
    let mut peer_pod = PeerPod::new(&name(key, pod), spec);
    peer_pod.metadata.namespace = Some(pod.namespace.clone());
    peer_pod.metadata.finalizers = Some(vec![PEERPOD_FINALIZER.to_owned()]);
    peer_pod.metadata.labels = Some([(LABEL.to_owned(), tag(key))].into());
    peer_pod.metadata.owner_references = Some(vec![owner]);
    peer_pod
}

/// The name of a VM's PeerPod: upstream's form, with what tells the VM in the place of chance, so that writing twice makes one.
#[must_use]
pub(crate) fn name(key: &VmKey, pod: &Pod) -> String {
    let cut = pod.name.char_indices().nth(POD_PART).map_or(pod.name.len(), |(at, _)| at);
    let pod = pod.name[..cut].trim_end_matches(['.', '-']);
    format!("{pod}-resource-{}", &tag(key)[..10])
}

/// A VM's key as a label's value: 32 characters, the same for the same VM and no other.
#[must_use]
pub(crate) fn tag(key: &VmKey) -> String {
    hex::encode(&Sha256::digest(key.to_string().as_bytes())[..16])
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn key(sandbox: &str) -> VmKey {
        VmKey { cluster: "c".parse().unwrap(), sandbox: sandbox.parse().unwrap() }
    }

    fn pod(name: &str) -> Pod {
        Pod { namespace: "shop".to_owned(), name: name.to_owned(), location: None, since: None }
    }

    fn there(id: &str) -> PeerPod {
        let spec = PeerPodSpec { instance_id: id.to_owned(), ..PeerPodSpec::default() };
        created(&key("s"), &pod("web"), OwnerReference::default(), spec)
    }

    #[test]
    fn only_what_differs_is_written() {
        let mut unguarded = there("i-1");
        unguarded.metadata.finalizers = Some(vec!["other".to_owned()]);
        let mut going = there("");
        going.metadata.deletion_timestamp = Some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        let guards =
            json!({ "metadata": { "finalizers": ["other", PEERPOD_FINALIZER], "resourceVersion": null } });
        for (found, instance, expected) in [
            (None, None, Step::Create),
            (Some(there("")), None, Step::Nothing),
            (Some(there("i-1")), Some("i-1"), Step::Nothing),
            // Before the id is known again.
            (Some(there("i-1")), None, Step::Nothing),
            (Some(there("")), Some("i-1"), Step::Patch(json!({ "spec": { "instanceID": "i-1" } }))),
            (Some(unguarded), Some("i-1"), Step::Patch(guards)),
            (Some(going), Some("i-1"), Step::Nothing),
        ] {
            assert_eq!(decide(found.as_ref(), instance), expected, "{found:?}");
        }
    }

    #[test]
    fn names_tell_vms_apart_and_are_names_however_long_the_pods_is() {
        assert_eq!(name(&key("s"), &pod("web")), name(&key("s"), &pod("web")));
        assert_ne!(name(&key("s"), &pod("web")), name(&key("t"), &pod("web")));
        assert!(name(&key("s"), &pod("web")).starts_with("web-resource-"));
        let long = name(&key("s"), &pod(&format!("{}.{}", "a".repeat(POD_PART - 1), "b".repeat(20))));
        assert!(
            long.len() <= 253 && long.starts_with(&format!("{}-resource-", "a".repeat(POD_PART - 1))),
            "{long}"
        );
    }
}
