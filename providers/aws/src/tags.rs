//! The tags of everything we make: who owns it, which sandbox it is for, which attempt made it. Pure.
//!
//! An object is ours by [`MANAGED`]; a VM is found by [`CLUSTER`] and [`SANDBOX`]. The pod's namespace and name, the node and whatever
//! else [`VmSpec::tags`] has are written under their own names, the VM's name as `Name`, which consoles show.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::Tag;
use peerpods_podvm::ClusterId;
use peerpods_provider::{VmKey, VmSpec};

/// Marks an object as made by us.
pub(crate) const MANAGED: &str = "io.peerpods.managed";
/// The cluster that owns the VM.
pub(crate) const CLUSTER: &str = "io.peerpods.cluster";
/// The sandbox it was made for.
pub(crate) const SANDBOX: &str = "io.peerpods.sandbox";
/// The number in its client token, see [`crate::token`].
pub(crate) const ATTEMPT: &str = "io.peerpods.attempt";
/// On an AMI: its guest daemon can be admitted by a token of this version.
pub(crate) const GUEST_ADMISSION: &str = "io.peerpods.guest-admission";
/// What consoles show as the name.
pub(crate) const NAME: &str = "Name";

/// Our own tags on one object: the five above that VMs have, and namespace, pod and node of the service.
pub(crate) const OURS_AT_MOST: usize = 8;

const OURS: [&str; 8] =
    [MANAGED, CLUSTER, SANDBOX, ATTEMPT, NAME, "namespace", "pod", peerpods_provider::NODE_TAG];
const LONGEST_KEY: usize = 128;
const LONGEST_VALUE: usize = 256;

/// All tags of a VM and its side objects. Ours win over configured ones.
pub(crate) fn of_vm(
    key: &VmKey,
    spec: &VmSpec,
    attempt: u32,
    configured: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut tags = configured.clone();
    tags.extend(spec.tags.iter().map(|(name, value)| (name.clone(), cut(value))));
    let ours = [
        (MANAGED, "true".to_owned()),
        (CLUSTER, key.cluster.to_string()),
        (SANDBOX, key.sandbox.to_string()),
        (ATTEMPT, attempt.to_string()),
        (NAME, spec.name.clone()),
    ];
    tags.extend(ours.map(|(name, value)| (name.to_owned(), value)));
    tags
}

/// As EC2 takes them.
pub(crate) fn to_ec2(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// As EC2 answers them.
pub(crate) fn from_ec2(tags: &[Tag]) -> BTreeMap<String, String> {
    let pair = |tag: &Tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()));
    tags.iter().filter_map(pair).collect()
}

/// The key of the VM with these tags; `None` when they are not ours, or somebody changed them.
pub(crate) fn key_of(tags: &BTreeMap<String, String>) -> Option<VmKey> {
    let cluster: ClusterId = tags.get(CLUSTER)?.parse().ok()?;
    let sandbox = tags.get(SANDBOX)?.parse().ok()?;
    Some(VmKey { cluster, sandbox })
}

/// The attempt that made the VM; 0 when nothing says so.
pub(crate) fn attempt_of(tags: &BTreeMap<String, String>) -> u32 {
    tags.get(ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What is wrong with a tag somebody configured, if anything.
pub(crate) fn fault(key: &str, value: &str) -> Option<String> {
    let allowed = |c: char| c.is_alphanumeric() || " +-=._:/@".contains(c);
    let length = key.chars().count();
    if length == 0 || length > LONGEST_KEY {
        return Some(format!(
            "{key:?} is no key: it has {length} characters, 1 to {LONGEST_KEY} are allowed"
        ));
    }
    if value.chars().count() > LONGEST_VALUE {
        return Some(format!("{key:?} has a value that is too long: {LONGEST_VALUE} characters are allowed"));
    }
    if key.to_ascii_lowercase().starts_with("aws:") {
        return Some(format!("{key:?} begins with aws:, which is AWS's own"));
    }
    if let Some(bad) = key.chars().chain(value.chars()).find(|c| !allowed(*c)) {
        return Some(format!(
            "{key:?} or its value has {bad:?}: letters, digits, spaces and +-=._:/@ are allowed"
        ));
    }
    OURS.contains(&key).then(|| format!("{key:?} is set by peerpods itself"))
}

fn cut(value: &str) -> String {
    value.chars().take(LONGEST_VALUE).collect()
}

#[cfg(test)]
mod tests {
    use peerpods_provider::{UserData, VmSize};

    use super::*;

    fn key() -> VmKey {
        VmKey { cluster: "c1".parse().unwrap(), sandbox: "s1".parse().unwrap() }
    }

    #[test]
    fn a_vm_is_known_again_by_its_tags() {
        let spec = VmSpec {
            name: "podvm-web-s1".to_owned(),
            image: None,
            machine_type: None,
            size: VmSize::default(),
            user_data: UserData::new(""),
            tags: BTreeMap::from([("node".to_owned(), "n1".to_owned())]),
        };
        let configured =
            BTreeMap::from([("team".to_owned(), "a".to_owned()), (SANDBOX.to_owned(), "x".to_owned())]);
        let tags = from_ec2(&to_ec2(&of_vm(&key(), &spec, 3, &configured)));
        assert_eq!((key_of(&tags), attempt_of(&tags)), (Some(key()), 3));
        for (name, value) in [("Name", "podvm-web-s1"), ("node", "n1"), ("team", "a"), (MANAGED, "true")] {
            assert_eq!(tags.get(name).map(String::as_str), Some(value));
        }
    }

    #[test]
    fn tags_that_are_not_ours_have_no_key() {
        let foreign = |cluster: &str| {
            BTreeMap::from([(CLUSTER.to_owned(), cluster.to_owned()), (SANDBOX.to_owned(), "s".to_owned())])
        };
        assert!(key_of(&foreign("c")).is_some());
        assert_eq!((key_of(&foreign("a/b")), key_of(&BTreeMap::new())), (None, None));
    }

    #[test]
    fn tags_ec2_would_refuse_or_we_need_are_refused() {
        let long = "x".repeat(129);
        for (key, value) in [
            ("", "v"),
            (long.as_str(), "v"),
            ("AWS:x", "v"),
            ("k", "a\nb"),
            ("k;", "v"),
            ("Name", "v"),
            ("node", "v"),
        ] {
            assert!(fault(key, value).is_some(), "{key:?}={value:?}");
        }
        for (key, value) in
            [("team", ""), ("Kostenstelle ä", "a@b.c/d_e-f+g=h:i"), ("cost", &"x".repeat(256))]
        {
            assert_eq!(fault(key, value), None);
        }
    }
}
