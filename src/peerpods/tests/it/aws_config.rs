//! The configuration of the AWS provider: the names of `peer-pods-secret` and `peer-pods-cm`, and what is wrong with them.

use std::time::Duration;

use peerpods::config::{ProviderSettings, keys};
use peerpods_provider_aws::{AwsConfig, Confidential, LaunchRate, Market, PortsAtStart, PublicAddress};

use crate::config::{faults, from};

const CHOSEN: (&str, &str) = ("CLOUD_PROVIDER", "aws");
const IMAGE: (&str, &str) = ("PODVM_AMI_ID", "ami-0123456789abcdef0");

fn aws(pairs: &[(&str, &str)]) -> AwsConfig {
    match from("", pairs, &[]).unwrap().provider {
        ProviderSettings::Aws(config) => *config,
        ProviderSettings::Qemu(other) => unreachable!("not AWS: {other:?}"),
    }
}

#[test]
fn the_keys_of_the_guide_are_understood_wherever_they_are() {
    let config = aws(&[
        CHOSEN,
        IMAGE,
        ("AWS_ACCESS_KEY_ID", "AKIA"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_SUBNET_ID", "subnet-01234567,subnet-89abcdef"),
        ("AWS_VPC_ID", "vpc-01234567"),
        ("AWS_SG_IDS", "sg-01234567, sg-89abcdef"),
        ("PODVM_INSTANCE_TYPE", "t3.medium"),
        ("PODVM_INSTANCE_TYPES", "t3.medium,m6a.large"),
        ("SSH_KP_NAME", "ops"),
        ("DISABLECVM", "true"),
        ("USE_PUBLIC_IP", "True"),
        ("ROOT_VOLUME_SIZE", "50"),
        ("TAGS", "team=payments,cost=4711"),
        ("PEERPODS_AWS_MARKET", "spot"),
        ("PEERPODS_AWS_VISIBLE_WITHIN", "30s"),
        ("PEERPODS_AWS_PRICES", "t3.medium=0.0416, m6a.large=0.0864"),
        ("PEERPODS_AWS_WORKER_SG_IDS", "sg-76543210"),
        ("PEERPODS_OPEN_PORTS", "true"),
    ]);
    assert_eq!((config.subnets.len(), config.security_groups.len(), config.instance_types.len()), (2, 2, 2));
    assert_eq!((config.confidential, config.public_address), (Confidential::Off, PublicAddress::Assigned));
    assert_eq!((config.market, config.root_volume_gib), (Market::Spot, Some(50)));
    assert_eq!(config.visible_within, Some(Duration::from_secs(30)));
    assert_eq!((config.prices["m6a.large"].to_string(), config.prices.len()), ("0.0864".to_owned(), 2));
    assert_eq!(config.worker_groups, ["sg-76543210"]);
    assert_eq!(
        (config.ports_at_start, aws(&[CHOSEN, IMAGE]).ports_at_start),
        (PortsAtStart::Open, PortsAtStart::Leave)
    );
    assert_eq!(config.tags.get("team").map(String::as_str), Some("payments"));
    assert_eq!(config.secret_access_key.as_ref().map(|secret| secret.expose()), Some("hunter2"));
    assert_eq!((config.vpc.as_deref(), config.key_name.as_deref()), (Some("vpc-01234567"), Some("ops")));
}

#[test]
fn disablecvm_is_a_truth_value_and_anything_else_names_the_key() {
    assert_eq!(aws(&[CHOSEN, IMAGE]).confidential, Confidential::WherePossible);
    assert_eq!(aws(&[CHOSEN, IMAGE, ("DISABLECVM", "false")]).confidential, Confidential::Required);
    let told = faults("", &[CHOSEN, IMAGE, ("DISABLECVM", "yes")], &[]);
    assert_eq!(told, ["disable-cvm (variable DISABLECVM) is \"yes\": expected true or false"]);
}

#[test]
fn the_launch_rate_is_ec2s_published_one_until_aws_raised_it() {
    let rate = |text| aws(&[CHOSEN, IMAGE, ("PEERPODS_AWS_LAUNCH_RATE", text)]).launch_rate;
    assert_eq!(aws(&[CHOSEN, IMAGE]).launch_rate, rate("5/2"));
    assert_eq!(rate("50/20"), LaunchRate { burst: 50, per_second: 20 });
    for wrong in ["20", "5/0", "5/two", "5/2/1"] {
        let told = faults("", &[CHOSEN, IMAGE, ("PEERPODS_AWS_LAUNCH_RATE", wrong)], &[]);
        assert!(told.len() == 1 && told[0].starts_with("aws.launch-rate"), "{wrong}: {told:?}");
    }
}

#[test]
fn a_launch_template_is_used_when_it_is_named_or_wanted() {
    let named = ("PODVM_LAUNCHTEMPLATE_NAME", "mine");
    let wanted = |truth| ("USE_PODVM_LAUNCHTEMPLATE", truth);
    for (pairs, expected) in [
        (vec![CHOSEN, named], Some("mine")),
        (vec![CHOSEN, wanted("true")], Some("kata")),
        (vec![CHOSEN, IMAGE, named, wanted("false")], None),
    ] {
        assert_eq!(aws(&pairs).launch_template.as_deref(), expected, "{pairs:?}");
    }
}

#[test]
fn what_is_missing_or_malformed_is_told_at_once_with_its_place() {
    let told = faults(
        "[aws]\nregion = \"Frankfurt\"\n",
        &[
            CHOSEN,
            ("AWS_SG_IDS", "default"),
            ("PEERPODS_AWS_WORKER_SG_IDS", "workers"),
            ("TAGS", "Name=x"),
            ("PEERPODS_AWS_PRICES", "t3.medium=cheap"),
            ("PEERPODS_OPEN_PORTS", "both"),
        ],
        &[],
    );
    for start in [
        "aws.image (default): image is missing",
        "aws.region (/f.toml:2)",
        "aws.security-groups (variable AWS_SG_IDS)",
        "aws.worker-groups (variable PEERPODS_AWS_WORKER_SG_IDS)",
        "tags (variable TAGS)",
        "aws.prices (variable PEERPODS_AWS_PRICES) is \"t3.medium=cheap\": \"cheap\" is no price",
        "open-ports (variable PEERPODS_OPEN_PORTS)",
    ] {
        assert!(told.iter().any(|fault| fault.starts_with(start)), "missing {start:?} in {told:#?}");
    }
    assert_eq!(told.len(), 7, "{told:#?}");
}

#[test]
fn who_chose_another_provider_may_leave_everything_out() {
    assert_eq!(faults("", &[("AWS_SG_IDS", "default")], &[]), Vec::<String>::new());
}

#[test]
fn secrets_are_not_shown_in_values_or_faults_and_have_no_option() {
    let settings =
        from("", &[CHOSEN, IMAGE, ("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "hunter2")], &[])
            .unwrap();
    let shown = format!("{:?} {settings:?}", settings.shown);
    assert!(!shown.contains("hunter2") && !shown.contains("AKIA"), "{shown}");
    let secrets = keys::KEYS.iter().filter(|key| key.reveal == keys::Reveal::Never).count();
    assert_eq!(secrets, 3);
}
