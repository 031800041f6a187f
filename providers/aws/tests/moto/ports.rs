//! Ports: looked at, opened, opened again, closed again.

use peerpods_provider_aws::ports::{Errand, Port, Protocol, Standing};
use peerpods_test_require::require;

use crate::form;
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
    let vpcs = site.proxy.moto("DescribeVpcs", &[]).await;
    let vpc = form::texts(&vpcs, "vpcId")[0].clone();
    let name = format!("ports-{}", std::process::id());
    let made = [("GroupName", name.as_str()), ("GroupDescription", "test"), ("VpcId", &vpc)];
    let group = site.proxy.moto("CreateSecurityGroup", &made).await;
    site.config.security_groups = vec![form::texts(&group, "groupId")[0].clone()];
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
        let rules = provider.ports(&PORTS, errand).await.unwrap();
        let standings: Vec<_> = rules.iter().map(|rule| (rule.port, rule.standing)).collect();
        assert_eq!(standings, PORTS.map(|port| (port, expected)), "{errand:?}");
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
    let error = site.provider().ports(&PORTS, Errand::Open).await.unwrap_err();
    assert!(
        error.to_string().contains("AWS_SG_IDS") || format!("{error:?}").contains("AWS_SG_IDS"),
        "{error:?}"
    );
    assert_eq!(site.calls("DescribeSecurityGroups").len(), 0, "asked for none, EC2 tells of all");
    assert_eq!(site.calls("AuthorizeSecurityGroupIngress").len(), 0);
}
