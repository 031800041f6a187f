//! What `doctor` says of AWS.

use peerpods_provider::Provider;
use peerpods_provider_aws::examine::{Finding, Grade, Needs};
use peerpods_provider_aws::ports::{Errand, Port, Protocol};
use peerpods_provider_aws::{Market, PortsAtStart};
use peerpods_test_require::require;

use crate::front::Fault;
use crate::server::NEEDS;
use crate::site::{Site, end, key, spec};

const PORTS: [Port; 2] =
    [Port { protocol: Protocol::Tcp, number: 15150 }, Port { protocol: Protocol::Udp, number: 9000 }];

async fn examined(site: &Site, most_vms: Option<u32>) -> Vec<Finding> {
    site.provider().examine(&Needs { ports: PORTS.to_vec(), most_vms }).await
}

fn of<'a>(found: &'a [Finding], check: &str) -> Vec<&'a Finding> {
    found.iter().filter(|finding| finding.check == check).collect()
}

/// A site with a group of its own, open ports and a quota: nothing to mend.
async fn healthy(name: &str) -> Site {
    let mut site = Site::new().await;
    site.config.instance_types = ["t3.medium", "m6a.large"].map(str::to_owned).to_vec();
    site.config.security_groups = vec![site.group(name).await];
    site.config.worker_groups = vec![site.group(&format!("{name}-workers")).await];
    site.proxy.front().beyond.vcpus = Some(64.0);
    site.provider().ports(&PORTS, &[], Errand::Open).await.unwrap();
    site
}

#[tokio::test]
async fn where_all_is_well_every_line_is_ok_and_nothing_was_changed() {
    if !require("where_all_is_well_every_line_is_ok_and_nothing_was_changed", NEEDS) {
        return;
    }
    let mut site = healthy("well").await;
    site.config.market = Market::Spot;
    let before = site.actions().len();
    let found = examined(&site, Some(10)).await;
    assert!(found.iter().all(|f| f.grade == Grade::Ok && f.fix.is_none()), "{found:#?}");
    for (check, words) in [
        ("aws credentials", "arn:aws:"),
        ("aws region", "us-east-1"),
        ("aws permission", "ec2:RunInstances and ec2:CreateTags"),
        ("aws image", "x86_64"),
        ("aws types", "t3.medium (2 vCPUs, 4096 MiB)"),
        ("aws subnet", "free addresses"),
        ("aws ports", "9000/udp"),
        ("aws quota", "32 VMs of 2 vCPUs"),
    ] {
        let lines = of(&found, check);
        assert!(lines.iter().any(|line| line.found.contains(words)), "{check}: {lines:#?}");
    }
    for (action, parameters) in &site.proxy.front().calls[before..] {
        let dry = parameters.get("DryRun").is_some_and(|dry| dry == "true");
        assert!(
            dry || action.starts_with("Describe") || action.starts_with("Get"),
            "{action} {parameters:?}"
        );
    }
}

#[tokio::test]
async fn what_is_denied_is_named_with_the_policy() {
    if !require("what_is_denied_is_named_with_the_policy", NEEDS) {
        return;
    }
    let mut site = healthy("denied").await;
    site.config.market = Market::Spot;
    let denied = [
        ("RunInstances", "ec2:CreateTags", Grade::Error),
        ("DescribeImages", "ec2:DescribeImages", Grade::Error),
        ("AuthorizeSecurityGroupIngress", "ec2:AuthorizeSecurityGroupIngress", Grade::Warning),
        ("DescribeVolumes", "ec2:DescribeVolumes", Grade::Warning),
        ("DescribeSpotPriceHistory", "ec2:DescribeSpotPriceHistory", Grade::Warning),
    ];
    for (call, action, grade) in denied {
        site.next(call, &[Fault::Deny(action)]);
        let found = examined(&site, None).await;
        site.proxy.front().faults.clear();
        let lines = of(&found, "aws permission");
        let line = lines.iter().find(|line| line.found.starts_with(&format!("{action}: denied")));
        let line = line.unwrap_or_else(|| panic!("no line for {action}: {found:#?}"));
        assert_eq!(line.grade, grade, "{line:?}");
        assert!(line.fix.as_ref().is_some_and(|fix| fix.contains(action) && fix.contains("iam-policy.json")));
    }
}

#[tokio::test]
async fn ending_vms_is_judged_by_a_vm_of_ours_and_by_nothing_else() {
    if !require("ending_vms_is_judged_by_a_vm_of_ours_and_by_nothing_else", NEEDS) {
        return;
    }
    let site = healthy("ending").await;
    let key = key("ending", "s1");
    site.provider().create(&key, &spec("podvm-web")).await.unwrap();
    site.next("TerminateInstances", &[Fault::Deny("ec2:TerminateInstances")]);
    let found = examined(&site, None).await;
    let line = |found: &[Finding]| {
        let lines = of(found, "aws permission");
        lines.iter().find(|line| line.found.starts_with("ec2:TerminateInstances")).map(|line| line.grade)
    };
    assert_eq!(line(&found), Some(Grade::Error), "{found:#?}");
    assert!(site.calls("TerminateInstances").iter().all(|call| call["DryRun"] == "true"));
    end(&site, &[key]).await;
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once() {
    if !require("everything_that_is_wrong_is_told_at_once", NEEDS) {
        return;
    }
    let mut site = Site::new().await;
    site.config.image = Some("ami-00000000".to_owned());
    site.config.instance_types.push("m6a.nonesuch".to_owned());
    site.config.subnets.push("subnet-00000000".to_owned());
    site.config.security_groups = vec!["sg-00000000".to_owned()];
    let found = examined(&site, None).await;
    for (check, words) in [
        ("aws image", "ami-00000000"),
        ("aws types", "m6a.nonesuch"),
        ("aws subnet", "subnet-00000000"),
        ("aws ports", "sg-00000000"),
    ] {
        let errors: Vec<_> =
            of(&found, check).into_iter().filter(|line| line.grade == Grade::Error).collect();
        assert!(
            errors.iter().any(|line| line.found.contains(words) && line.fix.is_some()),
            "{check}: {found:#?}"
        );
    }
    let ok = of(&found, "aws subnet").iter().filter(|line| line.grade == Grade::Ok).count();
    assert_eq!(ok, 1, "the other subnet is fine: {found:#?}");
}

#[tokio::test]
async fn too_few_addresses_and_too_small_a_quota_are_warnings_with_the_numbers() {
    if !require("too_few_addresses_and_too_small_a_quota_are_warnings_with_the_numbers", NEEDS) {
        return;
    }
    let site = healthy("few").await;
    let found = examined(&site, Some(100_000)).await;
    for check in ["aws subnet", "aws quota"] {
        let [line] = of(&found, check)[..] else { panic!("{found:#?}") };
        assert!(line.grade == Grade::Warning && line.found.contains("100000"), "{line:?}");
    }
    site.proxy.front().beyond.vcpus = Some(1.0);
    assert_eq!(of(&examined(&site, None).await, "aws quota")[0].grade, Grade::Error);
    site.proxy.front().beyond.vcpus = None;
    let found = examined(&site, None).await;
    let line = of(&found, "aws quota")[0];
    assert!(line.grade == Grade::Warning && line.found.starts_with("not known"), "{line:?}");
}

#[tokio::test]
async fn a_closed_port_comes_with_the_command_that_opens_it() {
    if !require("a_closed_port_comes_with_the_command_that_opens_it", NEEDS) {
        return;
    }
    let mut site = healthy("closed").await;
    let provider = site.provider();
    provider.ports(&PORTS[1..], &[], Errand::Close).await.unwrap();
    let line = |found: &[Finding]| {
        let line = of(found, "aws ports").into_iter().find(|line| line.found.contains("9000/udp")).cloned();
        line.map(|line| (line.grade, line.fix.unwrap_or_default())).unwrap()
    };
    assert_eq!(line(&examined(&site, None).await), (Grade::Error, "peerpods ports open aws".to_owned()));
    site.config.ports_at_start = PortsAtStart::Open;
    assert_eq!(line(&examined(&site, None).await).0, Grade::Warning);
    // Off a worker nobody knows whose group it has to be.
    site.config.worker_groups.clear();
    site.config.ports_at_start = PortsAtStart::Leave;
    let (grade, fix) = line(&examined(&site, None).await);
    assert!(grade == Grade::Warning && fix.contains("--from GROUP"), "{fix}");
}

#[tokio::test]
async fn credentials_that_are_not_taken_are_one_line_and_the_only_one() {
    if !require("credentials_that_are_not_taken_are_one_line_and_the_only_one", NEEDS) {
        return;
    }
    let site = Site::new().await;
    site.next("DescribeInstances", &[Fault::Refuse(401, "AuthFailure")]);
    let found = examined(&site, None).await;
    let [line] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((line.check, line.grade), ("aws credentials", Grade::Error));
    assert!(line.fix.as_ref().is_some_and(|fix| fix.contains("access key")), "{line:?}");
    // Who they are is worth a line, and no more.
    site.next("GetCallerIdentity", &[Fault::LoseRequest]);
    let found = examined(&site, None).await;
    assert_eq!(of(&found, "aws credentials")[0].grade, Grade::Warning, "{found:#?}");
}
