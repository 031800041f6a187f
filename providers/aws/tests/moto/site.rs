//! A region for one test: a proxy of its own before the shared moto, and what moto has to offer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use peerpods_podvm::guest_config::SecretText;
use peerpods_provider::{Provider, UserData, VmKey, VmSize, VmSpec};
use peerpods_provider_aws::{AwsConfig, AwsProvider};

use crate::form;
use crate::front::Fault;
use crate::proxy::Proxy;
use crate::server;

pub(crate) struct Site {
    pub(crate) proxy: Proxy,
    pub(crate) config: AwsConfig,
}

impl Site {
    pub(crate) async fn new() -> Self {
        Self::before(Proxy::start(moto().await)).await
    }

    /// With a proxy in this runtime, for tests in a time of their own.
    pub(crate) async fn here() -> Self {
        Self::before(Proxy::start_here(moto().await)).await
    }

    async fn before(proxy: Proxy) -> Self {
        let images = proxy
            .moto("DescribeImages", &[("Filter.1.Name", "architecture"), ("Filter.1.Value.1", "x86_64")])
            .await;
        let subnets = proxy.moto("DescribeSubnets", &[]).await;
        let groups = proxy.moto("DescribeSecurityGroups", &[]).await;
        let config = AwsConfig {
            access_key_id: Some(SecretText::new("AKIATEST")),
            secret_access_key: Some(SecretText::new("secret")),
            region: Some("us-east-1".to_owned()),
            endpoint_url: Some(format!("http://{}", proxy.address)),
            image: Some(form::texts(&images, "imageId")[0].clone()),
            instance_type: Some("t3.medium".to_owned()),
            instance_types: ["t3.medium", "m6a.large", "g4dn.xlarge"].map(str::to_owned).to_vec(),
            subnets: form::texts(&subnets, "subnetId")[..1].to_vec(),
            security_groups: form::texts(&groups, "groupId")[..1].to_vec(),
            tags: BTreeMap::from([("cost-centre".to_owned(), "4711".to_owned())]),
            ..AwsConfig::default()
        };
        Self { proxy, config }
    }

    pub(crate) fn provider(&self) -> AwsProvider {
        AwsProvider::new(self.config.clone())
    }

    /// What is to happen to the next calls of an action, in order.
    pub(crate) fn next(&self, action: &'static str, faults: &[Fault]) {
        self.proxy.front().faults.extend(faults.iter().map(|fault| (action, fault.clone())));
    }

    /// A security group of its own.
    pub(crate) async fn group(&self, name: &str) -> String {
        let vpcs = self.proxy.moto("DescribeVpcs", &[]).await;
        let vpc = form::texts(&vpcs, "vpcId")[0].clone();
        let name = format!("{name}-{}", std::process::id());
        let made = [("GroupName", name.as_str()), ("GroupDescription", "test"), ("VpcId", &vpc)];
        let group = self.proxy.moto("CreateSecurityGroup", &made).await;
        form::texts(&group, "groupId")[0].clone()
    }

    /// The parameters of all calls of an action so far.
    pub(crate) fn calls(&self, action: &str) -> Vec<form::Parameters> {
        let front = self.proxy.front();
        front.calls.iter().filter(|(of, _)| of == action).map(|(_, parameters)| parameters.clone()).collect()
    }

    /// All actions called so far.
    pub(crate) fn actions(&self) -> Vec<String> {
        self.proxy.front().calls.iter().map(|(action, _)| action.clone()).collect()
    }

    /// Instances of a cluster that moto has and that are not ended.
    pub(crate) async fn instances(&self, key: &VmKey) -> Vec<String> {
        let xml = self.proxy.moto("DescribeInstances", &live_of(key.cluster.as_str())).await;
        form::texts(&xml, "instanceId")
    }

    pub(crate) fn hide_for(&self, time: Duration) {
        self.proxy.front().hidden_for = time;
    }
}

async fn moto() -> SocketAddr {
    tokio::task::spawn_blocking(server::address).await.unwrap()
}

/// The filter of what lives in a cluster.
pub(crate) fn live_of(cluster: &str) -> Vec<(&str, &str)> {
    vec![
        ("Filter.1.Name", "tag:io.peerpods.cluster"),
        ("Filter.1.Value.1", cluster),
        ("Filter.2.Name", "instance-state-name"),
        ("Filter.2.Value.1", "pending"),
        ("Filter.2.Value.2", "running"),
        ("Filter.2.Value.3", "stopping"),
        ("Filter.2.Value.4", "stopped"),
    ]
}

/// A key of a cluster of this test alone.
pub(crate) fn key(cluster: &str, sandbox: &str) -> VmKey {
    let cluster = format!("{cluster}-{}", std::process::id());
    VmKey { cluster: cluster.parse().unwrap(), sandbox: sandbox.parse().unwrap() }
}

pub(crate) fn spec(name: &str) -> VmSpec {
    VmSpec {
        name: name.to_owned(),
        image: None,
        machine_type: None,
        size: VmSize::default(),
        user_data: UserData::new("#cloud-config\n"),
        tags: BTreeMap::from([
            ("namespace".to_owned(), "default".to_owned()),
            ("pod".to_owned(), "web".to_owned()),
        ]),
    }
}

/// Ends what a test made, all of one cluster.
pub(crate) async fn end(site: &Site, keys: &[VmKey]) {
    site.hide_for(Duration::ZERO);
    let provider = site.provider();
    for key in keys {
        provider.delete(key).await.unwrap();
    }
    assert_eq!(site.instances(&keys[0]).await, Vec::<String>::new());
}
