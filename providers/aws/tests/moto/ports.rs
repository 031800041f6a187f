//! Ports: looked at, opened, opened again, closed again.

use peerpods_provider::ErrorKind;
use peerpods_provider_aws::ports::{Errand, Port, Protocol, Standing, Told};
use peerpods_test_require::require;

use crate::front::Fault;
use crate::server::NEEDS;
use crate::site::Site;

const PORTS: [Port; 2] =
    [Port { protocol: Protocol::Tcp, number: 15150 }, Port { protocol: Protocol::Udp, number: 9000 }];

#[tokio::test]
async fn ports_are_opened_once_and_closed_again_and_a_plan_changes_nothing() {
    if !require("ports_are_opened_once_and_closed_again_and_a_plan_changes_nothing", NEEDS) {
        return;
    }
    let mut site = Site::new().await;
    site.config.security_groups = vec![site.group("ports").await];
    let provider = site.provider();
    for (errand, expected) in [
        (Errand::Check, Standing::Missing),
        (Errand::PlanOpen, Standing::WouldOpen),
        (Errand::Check, Standing::Missing),
        (Errand::Open, Standing::Opened),
        (Errand::Open, Standing::Open),
        (Errand::Check, Standing::Open),
        (Errand::PlanClose, Standing::WouldClose),
        (Errand::Close, Standing::Closed),
        (Errand::Check, Standing::Missing),
    ] {
        let rules = provider.ports(&PORTS, &[], errand).await.unwrap();
        // This machine is no instance.
        assert!(rules.iter().all(|rule| [Told::Assumed, Told::Opened].contains(&rule.told)), "{rules:?}");
        let standings: Vec<_> = rules.into_iter().map(|rule| (rule.port, rule.standing)).collect();
        assert_eq!(standings, PORTS.map(|port| (port, expected.clone())), "{errand:?}");
    }
    assert_eq!(site.calls("AuthorizeSecurityGroupIngress").len(), 2);
    assert_eq!(site.calls("RevokeSecurityGroupIngress").len(), 2);
}

#[tokio::test]
async fn without_a_group_of_the_vms_nothing_is_opened_rather_than_everything() {
    if !require("without_a_group_of_the_vms_nothing_is_opened_rather_than_everything", NEEDS) {
        return;
    }
    let mut site = Site::new().await;
    site.config.launch_template = Some("podvm".to_owned());
    site.config.security_groups = Vec::new();
    let error = site.provider().ports(&PORTS, &[], Errand::Open).await.unwrap_err();
    assert!(
        error.to_string().contains("AWS_SG_IDS") || format!("{error:?}").contains("AWS_SG_IDS"),
        "{error:?}"
    );
    assert_eq!(site.calls("DescribeSecurityGroups").len(), 0, "asked for none, EC2 tells of all");
    assert_eq!(site.calls("AuthorizeSecurityGroupIngress").len(), 0);
}

#[tokio::test]
async fn every_group_that_is_named_is_let_in_and_only_what_is_ours_is_closed() {
    if !require("every_group_that_is_named_is_let_in_and_only_what_is_ours_is_closed", NEEDS) {
        return;
    }
    let mut site = Site::new().await;
    let vms = site.group("from-vms").await;
    let workers = [site.group("from-a").await, site.group("from-b").await];
    site.config.security_groups = vec![vms.clone()];
    // The administrator's own rule for one port of one of them, and a range of addresses.
    let rule = [
        ("GroupId", vms.as_str()),
        ("IpPermissions.1.IpProtocol", "udp"),
        ("IpPermissions.1.FromPort", "9000"),
        ("IpPermissions.1.ToPort", "9000"),
        ("IpPermissions.1.Groups.1.GroupId", &workers[0]),
        ("IpPermissions.1.IpRanges.1.CidrIp", "10.0.0.0/8"),
    ];
    site.proxy.moto("AuthorizeSecurityGroupIngress", &rule).await;
    let provider = site.provider();
    let standings = async |from: &[String], errand| {
        let rules = provider.ports(&PORTS, from, errand).await.unwrap();
        rules.into_iter().map(|rule| rule.standing).collect::<Vec<_>>()
    };
    let (missing, unknown) = (Standing::Missing, Standing::Unknown("10.0.0.0/8".to_owned()));
    let expected = [missing.clone(), missing, Standing::Open, unknown];
    assert_eq!(standings(&workers, Errand::Check).await, expected);
    let opened = [Standing::Opened, Standing::Opened, Standing::Open, Standing::Opened];
    assert_eq!(standings(&workers, Errand::Open).await, opened);
    assert_eq!(standings(&workers, Errand::Check).await, vec![Standing::Open; 4]);
    // Without names: all of ours, and nothing else.
    assert_eq!(standings(&[], Errand::Close).await, vec![Standing::Closed; 3]);
    assert_eq!(standings(&workers[..1], Errand::Check).await, [Standing::Missing, Standing::Open]);
}

#[tokio::test]
async fn every_id_that_is_malformed_or_does_not_exist_is_told_at_once_and_nothing_is_opened() {
    if !require("every_id_that_is_malformed_or_does_not_exist_is_told_at_once_and_nothing_is_opened", NEEDS) {
        return;
    }
    let mut site = Site::new().await;
    site.config.security_groups.push("sg-00000001".to_owned());
    let from = ["sg-00000002", "workers", "sg-00000003", "sg-xyz"].map(str::to_owned);
    let error = site.provider().ports(&PORTS, &from, Errand::Open).await.unwrap_err();
    let text = error.to_string();
    for id in from.iter().map(String::as_str).chain(["sg-00000001", "AWS_SG_IDS", "--from"]) {
        assert!(text.contains(id), "{id} is missing in {text}");
    }
    assert!(error.kind == ErrorKind::Invalid && site.calls("AuthorizeSecurityGroupIngress").is_empty());
}

#[tokio::test]
async fn a_service_opens_ports_for_the_workers_it_was_told_and_nothing_on_a_guess() {
    if !require("a_service_opens_ports_for_the_workers_it_was_told_and_nothing_on_a_guess", NEEDS) {
        return;
    }
    let mut site = Site::new().await;
    let error = site.provider().ensure_ports(&PORTS).await.unwrap_err();
    assert!(error.to_string().contains("PEERPODS_AWS_WORKER_SG_IDS"), "{error}");
    assert_eq!(site.calls("AuthorizeSecurityGroupIngress").len(), 0);
    site.config.security_groups = vec![site.group("ensured").await];
    site.config.worker_groups = vec![site.group("ensured-for").await];
    let provider = site.provider();
    for expected in [Standing::Opened, Standing::Open] {
        let rules = provider.ensure_ports(&PORTS).await.unwrap();
        assert!(rules.iter().all(|rule| rule.standing == expected), "{rules:?}");
    }
    site.next("DescribeSecurityGroups", &[Fault::Deny("ec2:DescribeSecurityGroups")]);
    let error = provider.ensure_ports(&PORTS).await.unwrap_err();
    assert!(error.kind == ErrorKind::Denied && error.to_string().contains("doctor"), "{error}");
}
