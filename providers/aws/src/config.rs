//! What an administrator decides about VMs on EC2. Names and defaults are those of `peer-pods-cm` and `peer-pods-secret`.
//!
//! Judged whole: [`AwsConfig::faults`] answers everything that is wrong. What only AWS can tell (whether an id exists) is
//! `verify`'s business.

use std::collections::BTreeMap;
use std::time::Duration;

use peerpods_podvm::guest_config::SecretText;

use crate::bucket::Rate;
use crate::prices::Price;
use crate::tags;

/// The instance type of a VM that asks for none, where none is configured.
pub(crate) const DEFAULT_TYPE: &str = "m6a.large";
/// The size of a root volume in GiB, where none is configured.
pub(crate) const DEFAULT_ROOT_GIB: u32 = 30;
/// The largest EBS volume of the general purpose types, in GiB.
const MOST_ROOT_GIB: u32 = 16 * 1024;
/// How long EC2 may not show what it made.
const VISIBLE_WITHIN: Duration = Duration::from_secs(60);
/// Tags one object can have at EC2.
const MOST_TAGS: usize = 50;

/// Whether VMs run on encrypted memory (AMD SEV-SNP, the only kind EC2 has).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Confidential {
    /// Where the instance type can (`DISABLECVM` is not set).
    #[default]
    WherePossible,
    /// Always; a type that cannot is refused (`DISABLECVM` is `false`).
    Required,
    /// Never (`DISABLECVM` is `true`).
    Off,
}

/// Whether a VM gets a public address, which the worker then uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PublicAddress {
    /// Private addresses only.
    #[default]
    None,
    /// A public one that goes with the VM: for workers outside the VPC.
    Assigned,
}

/// What capacity VMs are bought as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Market {
    /// On demand.
    #[default]
    OnDemand,
    /// Spot; on demand where there is no spot capacity.
    Spot,
}

/// How fast the account may ask for VMs in its region, over all nodes: EC2's bucket of requests for `RunInstances`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaunchRate {
    /// Requests at once.
    pub burst: u32,
    /// Requests a second from then on.
    pub per_second: u32,
}

/// As EC2 publishes it; AWS raises it for those who ask.
impl Default for LaunchRate {
    fn default() -> Self {
        Self { burst: 5, per_second: 2 }
    }
}

impl From<LaunchRate> for Rate {
    fn from(rate: LaunchRate) -> Self {
        // No rate at all is a fault of the configuration; until that is told nobody may wait for ever.
        let least_one = |number: u32| f64::from(number.max(1));
        Self { burst: least_one(rate.burst), per_second: least_one(rate.per_second) }
    }
}

/// What a service does about the two ports when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PortsAtStart {
    /// Nothing.
    #[default]
    Leave,
    /// It opens what is not open.
    Open,
}

/// Configuration of the AWS provider. Only `image` has no default.
#[derive(Debug, Clone, Default)]
pub struct AwsConfig {
    /// The id of a static access key; without it the SDK's default chain is asked: environment, web identity (IRSA), shared profile, pod
    /// identity, instance role.
    pub access_key_id: Option<SecretText>,
    /// Its secret.
    pub secret_access_key: Option<SecretText>,
    /// The token of temporary static credentials.
    pub session_token: Option<SecretText>,
    /// A profile of the shared credentials files.
    pub profile: Option<String>,
    /// The region; default: what the SDK finds, at last in instance metadata.
    pub region: Option<String>,
    /// Another address of the EC2 API, such as a VPC endpoint's.
    pub endpoint_url: Option<String>,
    /// The AMI VMs boot from.
    pub image: Option<String>,
    /// The type of a VM that asks for none; default: `m6a.large`, or the launch template's.
    pub instance_type: Option<String>,
    /// The types a pod may ask for, by name or by size; empty: only `instance_type`.
    pub instance_types: Vec<String>,
    /// Subnets, tried in this order when one has no capacity; empty: the worker's own.
    pub subnets: Vec<String>,
    /// The VPC that subnets must belong to.
    pub vpc: Option<String>,
    /// Security groups; empty: the worker's own.
    pub security_groups: Vec<String>,
    /// Security groups of the workers, which ports are opened for; empty: this worker's own.
    pub worker_groups: Vec<String>,
    /// What a service does about ports; the provider does nothing unasked.
    pub ports_at_start: PortsAtStart,
    /// A key pair for SSH; default: none is put into VMs.
    pub key_name: Option<String>,
    /// A launch template by name. What is configured here, and what a pod asks for, goes before what is in it.
    pub launch_template: Option<String>,
    /// Whether VMs get a public address.
    pub public_address: PublicAddress,
    /// Least size of the root volume in GiB; 0: the image's. A larger image gets what it needs.
    pub root_volume_gib: Option<u32>,
    /// Whether memory is encrypted.
    pub confidential: Confidential,
    /// What capacity is bought.
    pub market: Market,
    /// How fast VMs may be asked for.
    pub launch_rate: LaunchRate,
    /// What types cost, which goes before what is known or estimated: the cheapest that fits is taken.
    pub prices: BTreeMap<String, Price>,
    /// Further tags of every object.
    pub tags: BTreeMap<String, String>,
    /// How long a VM may not be shown after it was asked for; default: a minute, as EC2 itself needs it.
    pub visible_within: Option<Duration>,
}

impl AwsConfig {
    /// How long a VM may not be shown after it was asked for.
    pub(crate) fn visible_within(&self) -> Duration {
        self.visible_within.unwrap_or(VISIBLE_WITHIN)
    }

    /// What is wrong, one sentence each, beginning with the field; empty when nothing is.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.missing();
        let ids = [("image", "ami", self.image.iter()), ("vpc", "vpc", self.vpc.iter())];
        for (field, prefix, given) in ids {
            faults.extend(given.filter_map(|id| malformed(field, prefix, id)));
        }
        faults.extend(self.subnets.iter().filter_map(|id| malformed("subnets", "subnet", id)));
        faults.extend(self.security_groups.iter().filter_map(|id| malformed("security_groups", "sg", id)));
        faults.extend(self.worker_groups.iter().filter_map(|id| malformed("worker_groups", "sg", id)));
        let types = self.instance_type.iter().map(|name| ("instance_type", name));
        let types = types.chain(self.instance_types.iter().map(|name| ("instance_types", name)));
        let types = types.chain(self.prices.keys().map(|name| ("prices", name)));
        faults.extend(types.filter(|(_, name)| !is_type(name)).map(|(field, name)| {
            format!("{field} {name:?} is no instance type: write one such as m6a.large")
        }));
        faults.extend(
            self.region
                .iter()
                .filter(|name| !is_region(name))
                .map(|name| format!("region {name:?} is no region: write one such as eu-central-1")),
        );
        if self.root_volume_gib.is_some_and(|gib| gib > MOST_ROOT_GIB) {
            faults.push(format!("root_volume_gib is too large: at most {MOST_ROOT_GIB}"));
        }
        if self.endpoint_url.as_ref().is_some_and(|url| !is_url(url)) {
            faults.push(
                "endpoint_url is no URL: write one such as https://ec2.eu-central-1.amazonaws.com".to_owned(),
            );
        }
        if self.launch_rate.burst == 0 || self.launch_rate.per_second == 0 {
            faults.push("launch_rate has a 0, with which no VM would ever be asked for".to_owned());
        }
        faults.extend(self.tag_faults());
        faults
    }

    /// What has to be there and is not.
    fn missing(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.image.is_none() && self.launch_template.is_none() {
            faults.push(
                "image is missing: set PODVM_AMI_ID in the ConfigMap peer-pods-cm or the Secret peer-pods-secret"
                    .to_owned(),
            );
        }
        let halves = [
            ("access_key_id", "AWS_ACCESS_KEY_ID", &self.access_key_id, &self.secret_access_key),
            ("secret_access_key", "AWS_SECRET_ACCESS_KEY", &self.secret_access_key, &self.access_key_id),
        ];
        for (field, variable, this, other) in halves {
            let needed = other.is_some() || self.session_token.is_some();
            if this.is_none() && needed {
                faults.push(format!(
                    "{field} is missing beside the rest of the key: set {variable} in the Secret peer-pods-secret or the ConfigMap peer-pods-cm, or neither"
                ));
            }
        }
        faults
    }

    fn tag_faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self
            .tags
            .iter()
            .filter_map(|(key, value)| tags::fault(key, value))
            .map(|fault| format!("tags {fault}"))
            .collect();
        let most = MOST_TAGS - tags::OURS_AT_MOST;
        if self.tags.len() > most {
            faults.push(format!(
                "tags are too many: {}; EC2 takes {MOST_TAGS}, {most} of them yours",
                self.tags.len()
            ));
        }
        faults
    }

    /// The type of a VM that asks for none; `None` leaves it to the launch template.
    pub(crate) fn default_type(&self) -> Option<&str> {
        match (&self.instance_type, &self.launch_template) {
            (Some(name), _) => Some(name),
            (None, Some(_)) => None,
            (None, None) => Some(DEFAULT_TYPE),
        }
    }
}

/// A sentence when `id` is not `<prefix>-` and 8 to 17 hexadecimal digits.
fn malformed(field: &str, prefix: &str, id: &str) -> Option<String> {
    (!is_id(prefix, id))
        .then(|| format!("{field} {id:?} is no id: write {prefix}- and 8 or 17 hexadecimal digits"))
}

pub(crate) fn is_id(prefix: &str, id: &str) -> bool {
    let digits = id.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')).unwrap_or_default();
    let lower_hex = |c: char| c.is_ascii_digit() || matches!(c, 'a'..='f');
    matches!(digits.len(), 8 | 17) && digits.chars().all(lower_hex)
}

/// `family.size`, each of lower-case letters, digits and dashes.
pub(crate) fn is_type(name: &str) -> bool {
    let part = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    name.len() <= 64 && name.split_once('.').is_some_and(|(family, size)| part(family) && part(size))
}

/// Words and a number, parted by dashes: `eu-central-1`, `us-gov-west-1`.
fn is_region(name: &str) -> bool {
    let parts: Vec<&str> = name.split('-').collect();
    let Some((number, words)) = parts.split_last() else { return false };
    let word = |text: &&str| !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase());
    words.len() >= 2 && words.iter().all(word) && number.parse::<u8>().is_ok()
}

fn is_url(text: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> AwsConfig {
        AwsConfig { image: Some("ami-0123456789abcdef0".to_owned()), ..AwsConfig::default() }
    }

    #[test]
    fn an_image_is_all_that_is_needed() {
        assert_eq!(good().faults(), Vec::<String>::new());
        let by_template = AwsConfig { launch_template: Some("kata".to_owned()), ..AwsConfig::default() };
        assert_eq!(by_template.faults(), Vec::<String>::new());
        assert_eq!((good().default_type(), by_template.default_type()), (Some("m6a.large"), None));
    }

    #[test]
    fn a_missing_key_names_both_places_it_may_be_in() {
        let faults = AwsConfig::default().faults();
        let [fault] = faults.as_slice() else { panic!("{faults:?}") };
        assert!(["PODVM_AMI_ID", "peer-pods-cm", "peer-pods-secret"].iter().all(|word| fault.contains(word)));
        let half = AwsConfig { access_key_id: Some(SecretText::new("AKIA")), ..good() };
        assert!(half.faults()[0].contains("AWS_SECRET_ACCESS_KEY"), "{:?}", half.faults());
        assert!(!half.faults()[0].contains("AKIA"));
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let bad = AwsConfig {
            image: Some("ami-xyz".to_owned()),
            region: Some("Frankfurt".to_owned()),
            vpc: Some("vpc-1".to_owned()),
            subnets: vec!["subnet-12345678".to_owned(), "sub".to_owned()],
            security_groups: vec!["sg-1234567g".to_owned()],
            worker_groups: vec!["workers".to_owned()],
            instance_type: Some("large".to_owned()),
            instance_types: vec!["m6a.large".to_owned(), "t3.".to_owned()],
            prices: BTreeMap::from([("m6a".to_owned(), "0.1".parse().unwrap())]),
            root_volume_gib: Some(1 << 20),
            endpoint_url: Some("ec2".to_owned()),
            launch_rate: LaunchRate { burst: 5, per_second: 0 },
            tags: BTreeMap::from([("aws:x".to_owned(), "y".to_owned())]),
            ..AwsConfig::default()
        };
        let faults = bad.faults();
        let fields: Vec<&str> = faults.iter().filter_map(|fault| fault.split(' ').next()).collect();
        assert_eq!(
            fields,
            [
                "image",
                "vpc",
                "subnets",
                "security_groups",
                "worker_groups",
                "instance_type",
                "instance_types",
                "prices",
                "region",
                "root_volume_gib",
                "endpoint_url",
                "launch_rate",
                "tags"
            ],
            "{faults:#?}"
        );
    }

    #[test]
    fn ids_regions_and_types_that_exist_are_taken() {
        for region in ["us-east-1", "us-gov-west-1", "ap-southeast-2", "cn-north-1", "us-iso-east-1"] {
            assert!(is_region(region), "{region}");
        }
        for name in ["m6a.large", "u-6tb1.metal", "hpc7g.16xlarge", "mac2-m2.metal", "c7gn.metal-48xl"] {
            assert!(is_type(name), "{name}");
        }
        assert!(is_id("subnet", "subnet-12345678") && !is_id("subnet", "subnet-123456789"));
    }
}
