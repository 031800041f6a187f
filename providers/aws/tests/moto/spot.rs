//! Spot: the cheapest type now, and what is told of a VM that EC2 took back.

use peerpods_provider::{Provider, VmSize, VmSpec};
use peerpods_provider_aws::{AwsConfig, Market};
use peerpods_test_require::require;

use crate::form;
use crate::front::Fault;
use crate::server::NEEDS;
use crate::site::{Site, end, key, spec};

/// What a pod of this size gets, by what was asked for.
async fn asked(site: &Site, name: &str) -> String {
    let key = key(name, "s1");
    let provider = site.provider();
    provider.verify().await.unwrap();
    let size = VmSize { vcpus: 2, memory_mib: 4000, gpus: 0 };
    provider.create(&key, &VmSpec { size, ..spec("podvm-web") }).await.unwrap();
    end(site, &[key]).await;
    site.calls("RunInstances").pop().unwrap()["InstanceType"].clone()
}

#[tokio::test]
async fn spot_prices_of_the_subnets_zones_decide_and_configured_ones_go_before_them() {
    if !require("spot_prices_of_the_subnets_zones_decide_and_configured_ones_go_before_them", NEEDS) {
        return;
    }
    let mut site = Site::new().await;
    site.config.instance_types = ["t3.medium", "m6a.large"].map(str::to_owned).to_vec();
    assert_eq!(asked(&site, "by-size").await, "t3.medium");
    assert!(site.calls("DescribeSpotPriceHistory").is_empty(), "on demand nobody asks");
    site.config.market = Market::Spot;
    let subnet = [("SubnetId.1", site.config.subnets[0].as_str())];
    let zone = form::texts(&site.proxy.moto("DescribeSubnets", &subnet).await, "availabilityZone")[0].clone();
    let zone: &'static str = zone.leak();
    site.proxy.front().beyond.spot_prices = vec![
        ("t3.medium", zone, "0.020000"),
        ("t3.medium", "us-east-1-elsewhere", "0.000100"),
        ("m6a.large", zone, "0.010000"),
    ];
    assert_eq!(asked(&site, "by-spot-price").await, "m6a.large");
    let prices = [("t3.medium", "0.001")].map(|(name, price)| (name.to_owned(), price.parse().unwrap()));
    site.config = AwsConfig { prices: prices.into(), ..site.config };
    assert_eq!(asked(&site, "by-configured-price").await, "t3.medium");
}

#[tokio::test]
async fn without_spot_prices_vms_are_made_by_size() {
    if !require("without_spot_prices_vms_are_made_by_size", NEEDS) {
        return;
    }
    let mut site = Site::new().await;
    site.config.instance_types = ["t3.medium", "m6a.large"].map(str::to_owned).to_vec();
    site.config.market = Market::Spot;
    site.next("DescribeSpotPriceHistory", &[Fault::Deny("ec2:DescribeSpotPriceHistory")]);
    assert_eq!(asked(&site, "no-prices").await, "t3.medium");
    assert_eq!(site.calls("DescribeSpotPriceHistory").len(), 1, "kept, and not asked for at each start");
}

#[tokio::test]
async fn a_vm_that_ec2_took_back_is_told_so() {
    if !require("a_vm_that_ec2_took_back_is_told_so", NEEDS) {
        return;
    }
    let (site, key) = (Site::new().await, key("taken-back", "s1"));
    let provider = site.provider();
    let made = provider.create(&key, &spec("podvm-web")).await.unwrap();
    assert_eq!(provider.why_gone(&key).await, None, "it runs");
    site.proxy.moto("TerminateInstances", &[("InstanceId.1", &made.id)]).await;
    let why = provider.why_gone(&key).await.unwrap();
    assert!(why.contains("somebody ended it"), "{why}");
    site.proxy.front().beyond.took_back = true;
    let why = provider.why_gone(&key).await.unwrap();
    assert!(
        why.contains("took the spot instance back") && why.contains("Server.SpotInstanceTermination"),
        "{why}"
    );
    assert_eq!(provider.get(&key).await.unwrap(), None);
    end(&site, &[key]).await;
}
