//! The `[aws]` table and the keys clouds share: the provider's own configuration, read key by key so that a fault names its place.
//! Names and meanings are those of `peer-pods-cm` and `peer-pods-secret`.

use std::collections::BTreeMap;

use peerpods_podvm::guest_config::SecretText;
use peerpods_provider_aws::{
    AwsConfig, Confidential, LaunchRate, Market, PortsAtStart, Price, PublicAddress,
};

use super::door::Door;
use super::keys::{self, Key, Reveal};
use super::kinds::{self, Kind};
use super::layers::Written;

/// The template `USE_PODVM_LAUNCHTEMPLATE` means when no name is given.
const DEFAULT_TEMPLATE: &str = "kata";

const fn key(
    name: &'static str,
    variable: &'static str,
    flag: &'static str,
    value: &'static str,
    about: &'static str,
) -> Key {
    Key { name, variable, flag, value, about, reveal: Reveal::Value }
}

const fn secret(name: &'static str, variable: &'static str, flag: &'static str, about: &'static str) -> Key {
    Key { name, variable, flag, value: "SECRET", about, reveal: Reveal::Never }
}

/// The keys, in the order `config show` prints them.
pub const KEYS: [Key; 25] = [
    key(
        "disable-cvm",
        "DISABLECVM",
        "disable-cvm",
        "TRUTH",
        "true: VMs without encrypted memory; false: never without; unset: with it where the type can",
    ),
    key(
        "use-public-ip",
        "USE_PUBLIC_IP",
        "use-public-ip",
        "TRUTH",
        "Whether VMs get a public address, and the worker uses it",
    ),
    key(
        "root-volume-size",
        "ROOT_VOLUME_SIZE",
        "root-volume-size",
        "GIB",
        "Least size of a VM's root volume; default: 30, 0: the image's",
    ),
    key(
        "open-ports",
        "PEERPODS_OPEN_PORTS",
        "open-ports",
        "TRUTH",
        "Whether the service opens the two ports between workers and VMs when it starts; default: false",
    ),
    key("tags", "TAGS", "tags", "KEY=VALUE,…", "Further tags of everything that is made"),
    secret(
        "aws.access-key-id",
        "AWS_ACCESS_KEY_ID",
        "aws-access-key-id",
        "Static credentials; default: what the SDK finds (IRSA, pod identity, instance role, profile)",
    ),
    secret("aws.secret-access-key", "AWS_SECRET_ACCESS_KEY", "aws-secret-access-key", "Their secret"),
    secret(
        "aws.session-token",
        "AWS_SESSION_TOKEN",
        "aws-session-token",
        "Their session, when they are temporary",
    ),
    key("aws.profile", "AWS_PROFILE", "aws-profile", "NAME", "A profile of the shared credentials files"),
    key("aws.region", "AWS_REGION", "aws-region", "REGION", "The region; default: this instance's"),
    key(
        "aws.endpoint-url",
        "AWS_ENDPOINT_URL_EC2",
        "aws-endpoint-url",
        "URL",
        "Another address of the EC2 API",
    ),
    key("aws.image", "PODVM_AMI_ID", "aws-image", "AMI", "The AMI of pod VMs"),
    key(
        "aws.instance-type",
        "PODVM_INSTANCE_TYPE",
        "aws-instance-type",
        "TYPE",
        "The type of VMs that ask for none; default: m6a.large",
    ),
    key(
        "aws.instance-types",
        "PODVM_INSTANCE_TYPES",
        "aws-instance-types",
        "TYPE,…",
        "Types a pod may get, by name or by size",
    ),
    key(
        "aws.subnets",
        "AWS_SUBNET_ID",
        "aws-subnets",
        "SUBNET,…",
        "Subnets of VMs, tried in this order; default: this instance's",
    ),
    key("aws.vpc", "AWS_VPC_ID", "aws-vpc", "VPC", "The VPC the subnets must be in"),
    key(
        "aws.security-groups",
        "AWS_SG_IDS",
        "aws-security-groups",
        "GROUP,…",
        "Security groups of VMs; default: this instance's",
    ),
    key(
        "aws.worker-groups",
        "PEERPODS_AWS_WORKER_SG_IDS",
        "aws-worker-groups",
        "GROUP,…",
        "Security groups of the workers, which ports are opened for; default: this instance's",
    ),
    key("aws.key-name", "SSH_KP_NAME", "aws-key-name", "NAME", "A key pair for SSH; default: none"),
    key(
        "aws.use-launch-template",
        "USE_PODVM_LAUNCHTEMPLATE",
        "aws-use-launch-template",
        "TRUTH",
        "Whether a launch template is used; default: when one is named",
    ),
    key(
        "aws.launch-template",
        "PODVM_LAUNCHTEMPLATE_NAME",
        "aws-launch-template",
        "NAME",
        "The launch template; what is configured here goes before it",
    ),
    key(
        "aws.market",
        "PEERPODS_AWS_MARKET",
        "aws-market",
        "MARKET",
        "on-demand, or spot: on demand where there is no spot capacity",
    ),
    key(
        "aws.launch-rate",
        "PEERPODS_AWS_LAUNCH_RATE",
        "aws-launch-rate",
        "BURST/PER_SECOND",
        "The account's RunInstances requests at once and a second, where AWS raised them; default: 5/2",
    ),
    key(
        "aws.visible-within",
        "PEERPODS_AWS_VISIBLE_WITHIN",
        "aws-visible-within",
        "DURATION",
        "How long EC2 may not show a VM it made; one that ends is looked for as long; default: 1m",
    ),
    key(
        "aws.prices",
        "PEERPODS_AWS_PRICES",
        "aws-prices",
        "TYPE=PRICE,…",
        "What types cost an hour, for choosing the cheapest; default: spot prices of EC2's, else an estimate by size",
    ),
];

/// Truth values as `peer-pods-cm` has them.
const TRUTH: Kind<bool> = Kind {
    read: |w| match w.line().to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    },
    show: |truth| (*truth).into(),
};

const MARKETS: &[(&str, Market)] = &[("on-demand", Market::OnDemand), ("spot", Market::Spot)];

const MARKET: Kind<Market> =
    Kind { read: |w| kinds::word(w, MARKETS), show: |market| kinds::name_of(*market, MARKETS).into() };

const LAUNCH_RATE: Kind<LaunchRate> = Kind {
    read: |w| {
        let numbers = w
            .line()
            .split_once('/')
            .map(|(burst, per_second)| (burst.trim().parse(), per_second.trim().parse()));
        match numbers {
            Some((Ok(burst), Ok(per_second))) => Ok(LaunchRate { burst, per_second }),
            _ => Err("expected two whole numbers such as 5/2".to_owned()),
        }
    },
    show: |rate| format!("{}/{}", rate.burst, rate.per_second).into(),
};

const GIB: Kind<u32> = Kind {
    read: |w| kinds::parsed(w).map_err(|_| "expected a whole number of GiB".to_owned()),
    show: |gib| (*gib).into(),
};

const SECRET: Kind<SecretText> =
    Kind { read: |w| (kinds::TEXT.read)(w).map(SecretText::new), show: |secret| secret.expose().into() };

const TAGS: Kind<BTreeMap<String, String>> =
    Kind { read: |w| pairs(w)?.ok_or_else(|| "expected KEY=VALUE,KEY=VALUE".to_owned()), show: shown };

const PRICES: Kind<BTreeMap<String, Price>> = Kind {
    read: |w| {
        let pairs = pairs(w)?.ok_or_else(|| "expected TYPE=PRICE,TYPE=PRICE".to_owned())?;
        pairs.into_iter().map(|(name, price)| Ok((name, price.parse()?))).collect()
    },
    show: shown,
};

/// `KEY=VALUE` words; `None` when one is none.
fn pairs(written: &Written) -> Result<Option<BTreeMap<String, String>>, String> {
    let pair = |word: &String| {
        let (key, value) = word.split_once('=')?;
        Some((key.trim().to_owned(), value.trim().to_owned()))
    };
    Ok((kinds::WORDS.read)(written)?.iter().map(pair).collect())
}

fn shown<T: std::fmt::Display>(pairs: &BTreeMap<String, T>) -> serde_json::Value {
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",").into()
}

/// Whether somebody is going to use the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It is the provider's: what is missing is a fault.
    Chosen,
    /// Another provider was chosen.
    Idle,
}

/// Reads the table through the door.
pub fn assemble(door: &mut Door, used: Use) -> AwsConfig {
    let disable_cvm = door.take_optional("disable-cvm", &TRUTH);
    let public = door.take("use-public-ip", false, &TRUTH);
    let open_ports = door.take("open-ports", false, &TRUTH);
    let config = AwsConfig {
        confidential: match disable_cvm {
            None => Confidential::WherePossible,
            Some(true) => Confidential::Off,
            Some(false) => Confidential::Required,
        },
        public_address: if public { PublicAddress::Assigned } else { PublicAddress::None },
        ports_at_start: if open_ports { PortsAtStart::Open } else { PortsAtStart::Leave },
        root_volume_gib: door.take_optional("root-volume-size", &GIB),
        tags: door.take("tags", BTreeMap::new(), &TAGS),
        access_key_id: door.take_optional("aws.access-key-id", &SECRET),
        secret_access_key: door.take_optional("aws.secret-access-key", &SECRET),
        session_token: door.take_optional("aws.session-token", &SECRET),
        profile: door.take_optional("aws.profile", &kinds::TEXT),
        region: door.take_optional("aws.region", &kinds::TEXT),
        endpoint_url: door.take_optional("aws.endpoint-url", &kinds::TEXT),
        image: door.take_optional("aws.image", &kinds::TEXT),
        instance_type: door.take_optional("aws.instance-type", &kinds::TEXT),
        instance_types: door.take("aws.instance-types", Vec::new(), &kinds::WORDS),
        subnets: door.take("aws.subnets", Vec::new(), &kinds::WORDS),
        vpc: door.take_optional("aws.vpc", &kinds::TEXT),
        security_groups: door.take("aws.security-groups", Vec::new(), &kinds::WORDS),
        worker_groups: door.take("aws.worker-groups", Vec::new(), &kinds::WORDS),
        key_name: door.take_optional("aws.key-name", &kinds::TEXT),
        launch_template: launch_template(door),
        market: door.take("aws.market", Market::OnDemand, &MARKET),
        launch_rate: door.take("aws.launch-rate", LaunchRate::default(), &LAUNCH_RATE),
        visible_within: door.take_optional("aws.visible-within", &kinds::DURATION),
        prices: door.take("aws.prices", BTreeMap::new(), &PRICES),
    };
    if used == Use::Chosen {
        for fault in config.faults() {
            door.refuse(key_of(&fault), fault);
        }
    }
    config
}

fn launch_template(door: &mut Door) -> Option<String> {
    let wanted = door.take_optional("aws.use-launch-template", &TRUTH);
    let name = door.take_optional("aws.launch-template", &kinds::TEXT);
    match wanted {
        Some(false) => None,
        Some(true) => Some(name.unwrap_or_else(|| DEFAULT_TEMPLATE.to_owned())),
        None => name,
    }
}

/// The provider's sentences begin with the field they are about.
fn key_of(fault: &str) -> &'static str {
    let field = fault.split(' ').next().unwrap_or_default().replace('_', "-");
    let name = match field.as_str() {
        "root-volume-gib" => "root-volume-size".to_owned(),
        "tags" => field,
        _ => format!("aws.{field}"),
    };
    keys::find(&name).map_or("provider", |key| key.name)
}
