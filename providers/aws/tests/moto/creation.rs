//! What is asked for when a VM is made, and that one create makes one VM whatever becomes of its answer.

use std::time::Duration;

use peerpods_podvm::image::GuestAdmission;
use peerpods_provider::{ErrorKind, Provider, VmSize, VmSpec};
use peerpods_provider_aws::{AwsConfig, Market};
use peerpods_test_require::require;

use crate::clock;
use crate::form;
use crate::front::Fault;
use crate::server::NEEDS;
use crate::site::{Site, end, key, spec};

#[tokio::test]
async fn instance_volume_and_interface_carry_our_tags_and_end_with_the_vm() {
    if !require("instance_volume_and_interface_carry_our_tags_and_end_with_the_vm", NEEDS) {
        return;
    }
    let (site, key) = (Site::new().await, key("tagged", "s1"));
    site.provider().create(&key, &spec("podvm-web-s1")).await.unwrap();
    let ours = [("Filter.1.Name", "tag:io.peerpods.cluster"), ("Filter.1.Value.1", key.cluster.as_str())];
    for (action, element) in [
        ("DescribeInstances", "instanceId"),
        ("DescribeVolumes", "volumeId"),
        ("DescribeNetworkInterfaces", "networkInterfaceId"),
    ] {
        let xml = site.proxy.moto(action, &ours).await;
        assert_eq!(form::texts(&xml, element).first().map(String::is_empty), Some(false), "{action}: {xml}");
        for value in ["podvm-web-s1", "s1", "default", "web", "4711"] {
            assert!(xml.contains(&format!("<value>{value}</value>")), "{action} lacks {value}: {xml}");
        }
    }
    let run = &site.calls("RunInstances")[0];
    assert_eq!(run["MetadataOptions.HttpTokens"], "required");
    assert_eq!(run["MetadataOptions.HttpPutResponseHopLimit"], "1");
    assert_eq!(run["BlockDeviceMapping.1.Ebs.DeleteOnTermination"], "true");
    assert_eq!(run["BlockDeviceMapping.1.Ebs.VolumeSize"], "30");
    assert_eq!(run["NetworkInterface.1.DeleteOnTermination"], "true");
    assert!(run["ClientToken"].len() <= 64);
    end(&site, std::slice::from_ref(&key)).await;
    let volumes = site.proxy.moto("DescribeVolumes", &ours).await;
    assert_eq!(form::texts(&volumes, "volumeId"), Vec::<String>::new());
}

#[tokio::test]
async fn a_lost_answer_makes_no_second_vm_and_the_request_is_the_same_byte_for_byte() {
    if !require("a_lost_answer_makes_no_second_vm_and_the_request_is_the_same_byte_for_byte", NEEDS) {
        return;
    }
    let (site, key) = (Site::new().await, key("lost", "s1"));
    site.next("RunInstances", &[Fault::LoseRequest, Fault::LoseAnswer]);
    let made = site.provider().create(&key, &spec("podvm-web-s1")).await.unwrap();
    let runs = site.calls("RunInstances");
    assert_eq!(runs.len(), 3);
    assert!(runs.iter().all(|run| *run == runs[0]), "{runs:#?}");
    assert_eq!(site.instances(&key).await, [made.id]);
    end(&site, &[key]).await;
}

#[tokio::test]
async fn answers_that_stay_lost_are_told_as_passing_and_the_next_create_finds_the_vm() {
    if !require("answers_that_stay_lost_are_told_as_passing_and_the_next_create_finds_the_vm", NEEDS) {
        return;
    }
    let (site, key) = (Site::new().await, key("lost-long", "s1"));
    site.next("RunInstances", &[Fault::LoseAnswer, Fault::LoseRequest, Fault::LoseRequest]);
    let provider = site.provider();
    let error = provider.create(&key, &spec("podvm-web-s1")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient, "{error}");
    // Not shown yet: only the token stands between us and a second VM.
    site.hide_for(Duration::from_secs(600));
    let made = provider.create(&key, &spec("podvm-web-s1")).await.unwrap();
    assert_eq!(site.instances(&key).await, [made.id]);
    end(&site, &[key]).await;
}

#[tokio::test]
async fn throttling_after_a_lost_answer_leaves_open_whether_there_is_a_vm_and_makes_no_second() {
    if !require("throttling_after_a_lost_answer_leaves_open_whether_there_is_a_vm_and_makes_no_second", NEEDS)
    {
        return;
    }
    let (site, key) = (Site::here().await, key("lost-throttled", "s1"));
    let throttled = vec![Fault::Refuse(503, "RequestLimitExceeded"); 500];
    site.next("RunInstances", &[vec![Fault::LoseAnswer], throttled].concat());
    let provider = site.provider();
    let error = clock::quickly(&site.proxy, provider.create(&key, &spec("podvm-web"))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Throttled, "{error}");
    site.proxy.front().faults.clear();
    // Not shown yet: only the token stands between us and a second VM.
    site.hide_for(Duration::from_secs(600));
    let made = provider.create(&key, &spec("podvm-web")).await.unwrap();
    assert_eq!(site.instances(&key).await, [made.id]);
    end(&site, &[key]).await;
}

#[tokio::test]
async fn a_denial_after_a_lost_answer_makes_no_second_vm_either() {
    if !require("a_denial_after_a_lost_answer_makes_no_second_vm_either", NEEDS) {
        return;
    }
    let (site, key) = (Site::new().await, key("lost-denied", "s1"));
    site.next("RunInstances", &[Fault::LoseAnswer, Fault::Refuse(403, "UnauthorizedOperation")]);
    let provider = site.provider();
    let error = provider.create(&key, &spec("podvm-web")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied, "{error}");
    site.hide_for(Duration::from_secs(600));
    let made = provider.create(&key, &spec("podvm-web")).await.unwrap();
    assert_eq!(site.instances(&key).await, [made.id]);
    end(&site, &[key]).await;
}

#[tokio::test]
async fn an_ami_that_is_gone_does_not_hide_the_vm_that_was_made_of_it() {
    if !require("an_ami_that_is_gone_does_not_hide_the_vm_that_was_made_of_it", NEEDS) {
        return;
    }
    let (site, key) = (Site::new().await, key("ami-gone", "s1"));
    let made = site.provider().create(&key, &spec("podvm-web")).await.unwrap();
    site.next("DescribeImages", &[Fault::Refuse(400, "InvalidAMIID.NotFound")]);
    let found = site.provider().create(&key, &spec("podvm-web")).await.unwrap();
    assert_eq!(found.id, made.id);
    assert_eq!(site.calls("DescribeImages").len(), 1, "a VM that is there needs no image");
    end(&site, &[key]).await;
}

#[tokio::test]
async fn without_capacity_the_next_type_is_taken_under_another_token_and_remembered() {
    if !require("without_capacity_the_next_type_is_taken_under_another_token_and_remembered", NEEDS) {
        return;
    }
    let site = Site::new().await;
    let keys = [key("capacity", "s1"), key("capacity", "s2")];
    site.next("RunInstances", &[Fault::Refuse(500, "InsufficientInstanceCapacity")]);
    let provider = site.provider();
    for key in &keys {
        provider.create(key, &spec("podvm-web")).await.unwrap();
    }
    let asked: Vec<_> = site.calls("RunInstances").iter().map(|run| run["InstanceType"].clone()).collect();
    assert_eq!(asked, ["t3.medium", "m6a.large", "m6a.large"]);
    let runs = site.calls("RunInstances");
    assert_ne!(runs[0]["ClientToken"], runs[1]["ClientToken"]);
    assert_eq!(runs[1].get("CpuOptions.AmdSevSnp").map(String::as_str), Some("enabled"));
    assert_eq!(runs[0].get("CpuOptions.AmdSevSnp"), None);
    end(&site, &keys).await;
}

#[tokio::test]
async fn without_capacity_anywhere_the_error_says_so_with_code_and_request() {
    if !require("without_capacity_anywhere_the_error_says_so_with_code_and_request", NEEDS) {
        return;
    }
    let mut site = Site::new().await;
    site.config.instance_types.clear();
    let key = key("no-capacity", "s1");
    site.next("RunInstances", &[Fault::Refuse(500, "InsufficientInstanceCapacity")]);
    let error = site.provider().create(&key, &spec("podvm-web")).await.unwrap_err();
    assert_eq!(
        (error.kind, error.code.as_deref()),
        (ErrorKind::Capacity, Some("InsufficientInstanceCapacity"))
    );
    assert!(error.request_id.is_some() && error.to_string().contains("t3.medium"), "{error}");
    end(&site, &[key]).await;
}

#[tokio::test]
async fn what_had_no_capacity_for_others_is_asked_for_once_and_the_error_lists_all_of_it() {
    if !require("what_had_no_capacity_for_others_is_asked_for_once_and_the_error_lists_all_of_it", NEEDS) {
        return;
    }
    let site = Site::new().await;
    site.proxy.front().exhausted = vec!["t3.medium", "m6a.large"];
    let provider = site.provider();
    let asked = || -> Vec<String> {
        site.calls("RunInstances").iter().map(|run| run["InstanceType"].clone()).collect()
    };
    for (number, all_asked) in [
        (1, vec!["t3.medium", "m6a.large"]),
        (2, vec!["t3.medium", "m6a.large", "t3.medium"]),
        (3, vec!["t3.medium", "m6a.large", "t3.medium", "m6a.large"]),
    ] {
        let key = key("exhausted-list", &format!("s{number}"));
        let error = provider.create(&key, &spec("podvm-web")).await.unwrap_err();
        assert_eq!(asked(), all_asked);
        assert_eq!(error.kind, ErrorKind::Capacity, "{error}");
        let listed = ["t3.medium in subnet-", "m6a.large in subnet-", "InsufficientInstanceCapacity, now"];
        assert!(listed.iter().all(|words| error.to_string().contains(words)), "{error}");
    }
    site.proxy.front().exhausted.clear();
    let key = key("exhausted-list", "s4");
    provider.create(&key, &spec("podvm-web")).await.unwrap();
    end(&site, &[key]).await;
}

#[tokio::test]
async fn spot_falls_back_to_on_demand() {
    if !require("spot_falls_back_to_on_demand", NEEDS) {
        return;
    }
    let mut site = Site::new().await;
    site.config = AwsConfig { market: Market::Spot, instance_types: Vec::new(), ..site.config };
    let key = key("spot", "s1");
    site.next("RunInstances", &[Fault::Refuse(400, "MaxSpotInstanceCountExceeded")]);
    site.provider().create(&key, &spec("podvm-web")).await.unwrap();
    let markets: Vec<_> = site
        .calls("RunInstances")
        .iter()
        .map(|run| run.get("InstanceMarketOptions.MarketType").cloned())
        .collect();
    assert_eq!(markets, [Some("spot".to_owned()), None]);
    end(&site, &[key]).await;
}

#[tokio::test]
async fn the_size_of_the_pod_chooses_the_type() {
    if !require("the_size_of_the_pod_chooses_the_type", NEEDS) {
        return;
    }
    let (site, key) = (Site::new().await, key("size", "s1"));
    let size = VmSize { vcpus: 0, memory_mib: 5000, gpus: 0 };
    site.provider().create(&key, &VmSpec { size, ..spec("podvm-web") }).await.unwrap();
    assert_eq!(site.calls("RunInstances")[0]["InstanceType"], "m6a.large");
    end(&site, &[key]).await;
}

#[tokio::test]
async fn a_tag_of_the_ami_says_whether_its_guest_can_be_admitted() {
    if !require("a_tag_of_the_ami_says_whether_its_guest_can_be_admitted", NEEDS) {
        return;
    }
    let site = Site::new().await;
    assert_eq!(site.provider().guest_admission(None).await, GuestAdmission::Unknown);
    let images = site.proxy.moto("DescribeImages", &[]).await;
    let other = form::texts(&images, "imageId").pop().unwrap();
    let tag = [
        ("ResourceId.1", other.as_str()),
        ("Tag.1.Key", "io.peerpods.guest-admission"),
        ("Tag.1.Value", "1"),
    ];
    site.proxy.moto("CreateTags", &tag).await;
    assert_eq!(site.provider().guest_admission(Some(&other)).await, GuestAdmission::Token);
}

#[tokio::test]
async fn a_launch_template_is_used_and_the_pods_own_type_goes_before_it() {
    if !require("a_launch_template_is_used_and_the_pods_own_type_goes_before_it", NEEDS) {
        return;
    }
    let mut site = Site::new().await;
    let keys = [key("template", "s1"), key("template", "s2")];
    let image = site.config.image.take().unwrap();
    let name = format!("kata-{}", std::process::id());
    let template = [
        ("LaunchTemplateName", name.as_str()),
        ("LaunchTemplateData.ImageId", &image),
        ("LaunchTemplateData.InstanceType", "m6a.large"),
    ];
    site.proxy.moto("CreateLaunchTemplate", &template).await;
    site.config = AwsConfig { launch_template: Some(name.clone()), instance_type: None, ..site.config };
    let provider = site.provider();
    provider.create(&keys[0], &spec("podvm-web")).await.unwrap();
    let annotated = VmSpec { machine_type: Some("t3.medium".to_owned()), ..spec("podvm-web") };
    provider.create(&keys[1], &annotated).await.unwrap();
    let runs = site.calls("RunInstances");
    assert!(runs.iter().all(|run| run["LaunchTemplate.LaunchTemplateName"] == name), "{runs:#?}");
    let types: Vec<_> = runs.iter().map(|run| run.get("InstanceType").cloned()).collect();
    assert_eq!(types, [None, Some("t3.medium".to_owned())]);
    end(&site, &keys).await;
}
