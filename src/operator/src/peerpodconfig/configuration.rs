//! What the Secret and the ConfigMap say together, and what is wrong with it. A key may be in either; in both, the ConfigMap's counts, as it does for
//! the service, which gets both as environment. Pure; no value is shown.

use sha2::{Digest, Sha256};

use super::world::{Keys, World};

/// Where a cloud is named.
pub(crate) const PROVIDER: &str = "CLOUD_PROVIDER";

/// What was found of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Why the service cannot run, one sentence each.
    pub faults: Vec<Fault>,
    /// Keys that are in both, with different values.
    pub clashes: Vec<String>,
    /// What the service's pods are restarted by: the same for the same contents.
    pub digest: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// A word for it.
    pub reason: &'static str,
    /// For people, with the key and both places it may be in.
    pub text: String,
}

/// Looks at the Secret and the ConfigMap that a PeerPodConfig names. `providers` are the clouds that the service can have VMs at.
#[must_use]
pub fn look(world: &World, providers: &[String]) -> Findings {
    let spec = &world.config.spec;
    let mut faults = Vec::new();
    let missing = |kind: &str, name: &str, reason| Fault {
        reason,
        text: format!("{kind} {name} is not there: create it in this namespace"),
    };
    if world.secret.is_none() {
        faults.push(missing("Secret", &spec.cloud_secret_name, "MissingSecret"));
    }
    if world.config_map.is_none() {
        faults.push(missing("ConfigMap", &spec.config_map_name, "MissingConfigMap"));
    }
    let empty = Keys::default();
    let (secret, map) =
        (world.secret.as_ref().unwrap_or(&empty), world.config_map.as_ref().unwrap_or(&empty));
    if faults.is_empty() {
        let places = format!("ConfigMap {} or Secret {}", spec.config_map_name, spec.cloud_secret_name);
        faults.extend(contents(secret, map, &places, providers));
    }
    let clash = |(key, value): (&String, &Vec<u8>)| {
        secret.0.get(key).is_some_and(|other| other != value).then(|| key.clone())
    };
    Findings { faults, clashes: map.0.iter().filter_map(clash).collect(), digest: digest(secret, map) }
}

fn contents(secret: &Keys, map: &Keys, places: &str, providers: &[String]) -> Vec<Fault> {
    let said = |key: &str| {
        let value = map.0.get(key).or_else(|| secret.0.get(key))?;
        Some(String::from_utf8_lossy(value).trim().to_owned()).filter(|value| !value.is_empty())
    };
    let lacks =
        |key: &str| Fault { reason: "MissingKey", text: format!("{key} is not set: put it into {places}") };
    let Some(provider) = said(PROVIDER) else { return vec![lacks(PROVIDER)] };
    if !providers.contains(&provider) {
        let text =
            format!("{PROVIDER} is {provider:?} in {places}: {}", what_it_can_be(&provider, providers));
        return vec![Fault { reason: "InvalidKey", text }];
    }
    let absent = required(&provider).iter().filter(|any| any.iter().all(|key| said(key).is_none()));
    absent.map(|any| lacks(&any.join(" or "))).collect()
}

/// Keys that a cloud needs; of some one is enough.
fn required(provider: &str) -> &'static [&'static [&'static str]] {
    match provider {
        "aws" => &[&["PODVM_AMI_ID", "PODVM_LAUNCHTEMPLATE_NAME"]],
        "azure" => &[
            &["AZURE_SUBSCRIPTION_ID"],
            &["AZURE_RESOURCE_GROUP"],
            &["AZURE_SUBNET_ID"],
            &["AZURE_IMAGE_ID"],
        ],
        _ => &[],
    }
}

fn what_it_can_be(provider: &str, providers: &[String]) -> String {
    let why = match provider {
        "qemu" => {
            "its VMs are for trying things without a cluster, and the service's container has no QEMU; "
        }
        _ => "",
    };
    match providers {
        [] => format!("{why}this build of peerpods has no cloud at all: the image needs one that has"),
        _ => format!("{why}with this build of peerpods it can be {}", providers.join(" or ")),
    }
}

fn digest(secret: &Keys, map: &Keys) -> String {
    let mut digest = Sha256::new();
    for keys in [secret, map] {
        for (key, value) in &keys.0 {
            for part in [key.as_bytes(), value] {
                digest.update((part.len() as u64).to_le_bytes());
                digest.update(part);
            }
        }
        digest.update([0xff; 8]);
    }
    hex::encode(&digest.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn keys(list: &[(&str, &str)]) -> Option<Keys> {
        Some(Keys(list.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()))
    }

    fn texts(secret: Option<Keys>, config_map: Option<Keys>) -> Vec<String> {
        let world = World { secret, config_map, ..World::default() };
        let faults = look(&world, &Settings::default().providers).faults;
        faults.into_iter().map(|fault| fault.text).collect()
    }

    #[test]
    fn only_what_the_service_has_can_be_its_cloud() {
        let told = |provider: &str, providers: &[&str]| {
            let (secret, config_map) =
                (keys(&[]), keys(&[("CLOUD_PROVIDER", provider), ("PODVM_AMI_ID", "ami-1")]));
            let world = World { secret, config_map, ..World::default() };
            let providers: Vec<String> = providers.iter().map(|one| (*one).to_owned()).collect();
            look(&world, &providers).faults.into_iter().next().map(|fault| (fault.reason, fault.text))
        };
        assert_eq!(told("aws", &["aws"]), None);
        for (provider, providers, expected) in [
            ("azure", &["aws"][..], "it can be aws"),
            ("qemu", &["aws"], "the service's container has no QEMU"),
            ("gcp", &["aws", "azure"], "it can be aws or azure"),
            ("aws", &[], "no cloud at all"),
        ] {
            let (reason, text) = told(provider, providers).unwrap();
            assert_eq!(reason, "InvalidKey");
            assert!(text.contains(&format!("{provider:?}")) && text.contains(expected), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_both_places() {
        assert_eq!(
            texts(None, None),
            [
                "Secret peer-pods-secret is not there: create it in this namespace",
                "ConfigMap peer-pods-cm is not there: create it in this namespace",
            ]
        );
        assert_eq!(
            texts(keys(&[]), keys(&[])),
            ["CLOUD_PROVIDER is not set: put it into ConfigMap peer-pods-cm or Secret peer-pods-secret"]
        );
        let aws = keys(&[("CLOUD_PROVIDER", "aws")]);
        assert_eq!(
            texts(keys(&[]), aws.clone()),
            [
                "PODVM_AMI_ID or PODVM_LAUNCHTEMPLATE_NAME is not set: put it into ConfigMap peer-pods-cm or Secret peer-pods-secret"
            ]
        );
        assert!(texts(keys(&[("PODVM_AMI_ID", "ami-1")]), aws).is_empty(), "a key may be in either");
        assert_eq!(texts(keys(&[]), keys(&[("CLOUD_PROVIDER", "azure")])).len(), 4);
        assert!(texts(keys(&[]), keys(&[("CLOUD_PROVIDER", "gcp")]))[0].contains("\"gcp\""));
    }

    #[test]
    fn a_clash_is_told_and_the_digest_follows_every_value() {
        let (secret, map) = (keys(&[("A", "1"), ("B", "2")]), keys(&[("A", "1"), ("B", "3")]));
        let world = World { secret: secret.clone(), config_map: map, ..World::default() };
        let findings = look(&world, &[]);
        assert_eq!(findings.clashes, ["B"]);
        let moved = World {
            secret: keys(&[("A", "1")]),
            config_map: keys(&[("A", "1"), ("B", "3")]),
            ..World::default()
        };
        assert_ne!(look(&moved, &[]).digest, findings.digest);
        assert_eq!(look(&world, &[]).digest, findings.digest);
        assert!(!format!("{secret:?}").contains('2'), "a value is shown");
    }
}
