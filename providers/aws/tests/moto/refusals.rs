//! What cannot be made: the kind of error, and that nothing was made or asked for in vain.

use peerpods_podvm::guest_config::SecretText;
use peerpods_provider::{ErrorKind, Provider, UserData, VmSpec};
use peerpods_provider_aws::AwsConfig;
use peerpods_test_require::require;

use crate::form;
use crate::front::Fault;
use crate::server::NEEDS;
use crate::site::{Site, key, spec};

#[tokio::test]
async fn each_refusal_of_ec2_has_its_kind_its_code_and_its_request() {
    if !require("each_refusal_of_ec2_has_its_kind_its_code_and_its_request", NEEDS) {
        return;
    }
    let (site, key) = (Site::new().await, key("refusals", "s1"));
    let provider = site.provider();
    for (status, code, kind) in [
        (400, "VcpuLimitExceeded", ErrorKind::Quota),
        (403, "UnauthorizedOperation", ErrorKind::Denied),
        (401, "AuthFailure", ErrorKind::Denied),
        (400, "InvalidParameterValue", ErrorKind::Invalid),
        (400, "InvalidSubnetID.NotFound", ErrorKind::NotFound),
    ] {
        site.next("RunInstances", &[Fault::Refuse(status, code)]);
        let error = provider.create(&key, &spec("podvm-web")).await.unwrap_err();
        assert_eq!((error.kind, error.code.as_deref()), (kind, Some(code)), "{error}");
        assert!(error.request_id.as_deref().is_some_and(|id| id.starts_with("req-")), "{error:?}");
    }
    assert_eq!(site.calls("RunInstances").len(), 5);
    assert_eq!(site.instances(&key).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_image_of_another_architecture_is_refused_before_anything_is_asked_for() {
    if !require("an_image_of_another_architecture_is_refused_before_anything_is_asked_for", NEEDS) {
        return;
    }
    let (site, key) = (Site::new().await, key("architecture", "s1"));
    let images = site
        .proxy
        .moto("DescribeImages", &[("Filter.1.Name", "architecture"), ("Filter.1.Value.1", "arm64")])
        .await;
    let image = Some(form::texts(&images, "imageId")[0].clone());
    let error = site.provider().create(&key, &VmSpec { image, ..spec("podvm-web") }).await.unwrap_err();
    assert!(error.kind == ErrorKind::Invalid && error.to_string().contains("arm64"), "{error}");
    let nonsense = VmSpec { image: Some("latest".to_owned()), ..spec("podvm-web") };
    let error = site.provider().create(&key, &nonsense).await.unwrap_err();
    assert!(error.kind == ErrorKind::Invalid && error.to_string().contains("ami-"), "{error}");
    assert!(site.calls("RunInstances").is_empty());
}

#[tokio::test]
async fn too_much_user_data_says_what_to_shorten() {
    if !require("too_much_user_data_says_what_to_shorten", NEEDS) {
        return;
    }
    let (site, key) = (Site::new().await, key("user-data", "s1"));
    let large = VmSpec { user_data: UserData::new(vec![b'#'; 16 * 1024 + 1]), ..spec("podvm-web") };
    let error = site.provider().create(&key, &large).await.unwrap_err();
    assert!(error.kind == ErrorKind::Invalid && error.to_string().contains("initdata"), "{error}");
    assert!(site.actions().is_empty());
}

#[tokio::test]
async fn verify_tells_what_does_not_exist_all_at_once_and_makes_nothing() {
    if !require("verify_tells_what_does_not_exist_all_at_once_and_makes_nothing", NEEDS) {
        return;
    }
    let site = Site::new().await;
    site.provider().verify().await.unwrap();
    let config = AwsConfig {
        image: Some("ami-00000000".to_owned()),
        subnets: vec!["subnet-00000000".to_owned()],
        ..site.config.clone()
    };
    let error = peerpods_provider_aws::AwsProvider::new(config).verify().await.unwrap_err().to_string();
    assert!(["PODVM_AMI_ID", "subnet-00000000"].iter().all(|word| error.contains(word)), "{error}");
    assert!(site.actions().iter().all(|action| action.starts_with("Describe")), "{:?}", site.actions());
    let error = peerpods_provider_aws::AwsProvider::new(AwsConfig::default()).verify().await.unwrap_err();
    assert!(error.kind == ErrorKind::Invalid && error.to_string().contains("PODVM_AMI_ID"), "{error}");
}

#[tokio::test]
async fn no_secret_is_printed() {
    let config = AwsConfig {
        access_key_id: Some(SecretText::new("AKIAVERYSECRET")),
        secret_access_key: Some(SecretText::new("hunter2")),
        session_token: Some(SecretText::new("hunter3")),
        ..AwsConfig::default()
    };
    let shown = format!("{config:?} {:?}", peerpods_provider_aws::AwsProvider::new(config.clone()));
    assert!(["AKIAVERY", "hunter"].iter().all(|secret| !shown.contains(secret)), "{shown}");
}

#[tokio::test]
async fn after_credentials_were_not_taken_they_are_read_anew_and_the_provider_goes_on() {
    if !require("after_credentials_were_not_taken_they_are_read_anew_and_the_provider_goes_on", NEEDS) {
        return;
    }
    let (site, key) = (Site::new().await, key("rotated", "s1"));
    let provider = site.provider();
    site.next("DescribeInstances", &[Fault::Refuse(401, "AuthFailure")]);
    let error = provider.get(&key).await.unwrap_err();
    assert!(error.kind == ErrorKind::Denied && error.to_string().contains("access key"), "{error}");
    assert_eq!(provider.get(&key).await.unwrap(), None);
}
