//! The one `RunInstances` call that makes a VM and everything that belongs to it. Pure: the same order is the same request, byte for
//! byte, as a repeated client token needs it.

use std::collections::BTreeMap;

use aws_sdk_ec2::operation::run_instances::builders::RunInstancesInputBuilder;
use aws_sdk_ec2::types::{
    AmdSevSnpSpecification, BlockDeviceMapping, CpuOptionsRequest, EbsBlockDevice, HttpTokensState,
    InstanceInterruptionBehavior, InstanceMarketOptionsRequest, InstanceMetadataEndpointState,
    InstanceMetadataOptionsRequest, InstanceNetworkInterfaceSpecification, LaunchTemplateSpecification,
    MarketType, ResourceType, SpotInstanceType, SpotMarketOptions, TagSpecification,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use peerpods_provider::UserData;

use crate::config::{AwsConfig, Market, PublicAddress};
use crate::image::Image;
use crate::placement::Placement;
use crate::tags;

/// Most bytes of user data, before base64.
pub(crate) const USER_DATA_LIMIT: usize = 16 * 1024;
/// Metadata answers reach the VM itself and nothing behind it, such as a pod.
const METADATA_HOPS: i32 = 1;

/// Whether this VM's memory is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    Plain,
    Encrypted,
}

/// Everything that goes into the call.
#[derive(Debug, Clone)]
pub(crate) struct Order<'a> {
    pub(crate) config: &'a AwsConfig,
    pub(crate) security_groups: &'a [String],
    pub(crate) placement: &'a Placement,
    /// `None` leaves it to the launch template.
    pub(crate) image: Option<&'a Image>,
    pub(crate) memory: Memory,
    pub(crate) user_data: &'a UserData,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) token: String,
}

/// The call.
pub(crate) fn run(order: &Order<'_>) -> RunInstancesInputBuilder {
    let config = order.config;
    let kinds = [ResourceType::Instance, ResourceType::Volume, ResourceType::NetworkInterface];
    let tagged = kinds.into_iter().map(|kind| {
        TagSpecification::builder().resource_type(kind).set_tags(Some(tags::to_ec2(&order.tags))).build()
    });
    RunInstancesInputBuilder::default()
        .min_count(1)
        .max_count(1)
        .client_token(&order.token)
        .user_data(STANDARD.encode(order.user_data.expose()))
        .set_tag_specifications(Some(tagged.collect()))
        .metadata_options(metadata())
        .set_image_id(order.image.map(|image| image.id.clone()))
        .set_instance_type(order.placement.machine_type.as_deref().map(Into::into))
        .set_key_name(config.key_name.clone())
        .set_launch_template(config.launch_template.as_ref().map(template))
        .set_network_interfaces(interface(order).map(|interface| vec![interface]))
        .set_block_device_mappings(root_volume(order).map(|root| vec![root]))
        .set_cpu_options((order.memory == Memory::Encrypted).then(encrypted))
        .set_instance_market_options((order.placement.market == Market::Spot).then(spot))
}

fn metadata() -> InstanceMetadataOptionsRequest {
    InstanceMetadataOptionsRequest::builder()
        .http_endpoint(InstanceMetadataEndpointState::Enabled)
        .http_tokens(HttpTokensState::Required)
        .http_put_response_hop_limit(METADATA_HOPS)
        .build()
}

fn template(name: &String) -> LaunchTemplateSpecification {
    LaunchTemplateSpecification::builder().launch_template_name(name).build()
}

/// The network interface; none where the launch template's is taken as it is.
fn interface(order: &Order<'_>) -> Option<InstanceNetworkInterfaceSpecification> {
    let public = order.config.public_address == PublicAddress::Assigned;
    if order.placement.subnet.is_none() && order.security_groups.is_empty() && !public {
        return None;
    }
    let groups = Some(order.security_groups.to_vec()).filter(|groups| !groups.is_empty());
    Some(
        InstanceNetworkInterfaceSpecification::builder()
            .device_index(0)
            .delete_on_termination(true)
            .set_subnet_id(order.placement.subnet.clone())
            .set_groups(groups)
            // Said both ways: a subnet may give public addresses by itself.
            .associate_public_ip_address(public)
            .build(),
    )
}

/// The root volume, if its size or its end differ from the image's. Named as the image of *this* VM names it.
fn root_volume(order: &Order<'_>) -> Option<BlockDeviceMapping> {
    let image = order.image?;
    let device = image.root_device.as_ref()?;
    let least = order.config.root_volume_gib.unwrap_or(crate::config::DEFAULT_ROOT_GIB);
    let size = i32::try_from(least.max(image.root_gib)).ok().filter(|gib| *gib > 0);
    let ebs = EbsBlockDevice::builder().delete_on_termination(true).set_volume_size(size).build();
    Some(BlockDeviceMapping::builder().device_name(device).ebs(ebs).build())
}

fn encrypted() -> CpuOptionsRequest {
    CpuOptionsRequest::builder().amd_sev_snp(AmdSevSnpSpecification::Enabled).build()
}

fn spot() -> InstanceMarketOptionsRequest {
    let once = SpotMarketOptions::builder()
        .spot_instance_type(SpotInstanceType::OneTime)
        .instance_interruption_behavior(InstanceInterruptionBehavior::Terminate)
        .build();
    InstanceMarketOptionsRequest::builder().market_type(MarketType::Spot).spot_options(once).build()
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::operation::run_instances::RunInstancesInput;
    use peerpods_podvm::image::GuestAdmission;

    use super::*;

    fn image() -> Image {
        Image {
            id: "ami-1".to_owned(),
            architecture: "x86_64".to_owned(),
            root_device: Some("/dev/xvda".to_owned()),
            root_gib: 50,
            uefi: true,
            admission: GuestAdmission::Unknown,
        }
    }

    fn built(
        config: &AwsConfig,
        placement: &Placement,
        image: Option<&Image>,
        memory: Memory,
    ) -> RunInstancesInput {
        let order = Order {
            config,
            security_groups: &["sg-1".to_owned(), "sg-2".to_owned()],
            placement,
            image,
            memory,
            user_data: &UserData::new("#cloud-config\n"),
            tags: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
            token: "pp-1".to_owned(),
        };
        assert_eq!(format!("{:?}", run(&order)), format!("{:?}", run(&order)));
        run(&order).build().unwrap()
    }

    fn placement(market: Market) -> Placement {
        Placement { machine_type: Some("m6a.large".to_owned()), subnet: Some("subnet-1".to_owned()), market }
    }

    #[test]
    fn one_call_makes_one_vm_whose_side_objects_are_tagged_and_end_with_it() {
        let input = built(&AwsConfig::default(), &placement(Market::OnDemand), Some(&image()), Memory::Plain);
        assert_eq!(
            (input.min_count(), input.max_count(), input.client_token()),
            (Some(1), Some(1), Some("pp-1"))
        );
        assert_eq!(input.user_data(), Some("I2Nsb3VkLWNvbmZpZwo="));
        let kinds: Vec<_> =
            input.tag_specifications().iter().filter_map(|tags| tags.resource_type()).collect();
        assert_eq!(kinds, [&ResourceType::Instance, &ResourceType::Volume, &ResourceType::NetworkInterface]);
        assert!(input.tag_specifications().iter().all(|tags| tags.tags()[0].key() == Some("team")));
        let [interface] = input.network_interfaces() else { panic!("{input:?}") };
        assert_eq!(
            (interface.delete_on_termination(), interface.associate_public_ip_address()),
            (Some(true), Some(false))
        );
        assert_eq!((interface.subnet_id(), interface.groups().len()), (Some("subnet-1"), 2));
        let [root] = input.block_device_mappings() else { panic!("{input:?}") };
        let ebs = root.ebs().unwrap();
        assert_eq!((root.device_name(), ebs.volume_size()), (Some("/dev/xvda"), Some(50)));
        assert_eq!(ebs.delete_on_termination(), Some(true));
    }

    #[test]
    fn metadata_needs_a_session_token_and_goes_one_hop() {
        let input = built(&AwsConfig::default(), &placement(Market::OnDemand), Some(&image()), Memory::Plain);
        let options = input.metadata_options().unwrap();
        assert_eq!(options.http_tokens(), Some(&HttpTokensState::Required));
        assert_eq!(options.http_put_response_hop_limit(), Some(1));
    }

    #[test]
    fn spot_encrypted_memory_and_a_public_address_are_asked_for_when_wanted_only() {
        let plain = built(&AwsConfig::default(), &placement(Market::OnDemand), Some(&image()), Memory::Plain);
        assert!(plain.cpu_options().is_none() && plain.instance_market_options().is_none());
        let config = AwsConfig { public_address: PublicAddress::Assigned, ..AwsConfig::default() };
        let rich = built(&config, &placement(Market::Spot), Some(&image()), Memory::Encrypted);
        let snp = rich.cpu_options().and_then(CpuOptionsRequest::amd_sev_snp);
        assert_eq!(snp, Some(&AmdSevSnpSpecification::Enabled));
        assert_eq!(rich.instance_market_options().and_then(|o| o.market_type()), Some(&MarketType::Spot));
        assert_eq!(rich.network_interfaces()[0].associate_public_ip_address(), Some(true));
    }

    #[test]
    fn a_launch_template_keeps_what_nobody_says_otherwise() {
        let config = AwsConfig { launch_template: Some("kata".to_owned()), ..AwsConfig::default() };
        let nothing = Placement { machine_type: None, subnet: None, market: Market::OnDemand };
        let order = Order {
            config: &config,
            security_groups: &[],
            placement: &nothing,
            image: None,
            memory: Memory::Plain,
            user_data: &UserData::new(""),
            tags: BTreeMap::new(),
            token: "pp-1".to_owned(),
        };
        let input = run(&order).build().unwrap();
        assert_eq!(
            input.launch_template().and_then(|template| template.launch_template_name()),
            Some("kata")
        );
        assert!(input.image_id().is_none() && input.instance_type().is_none());
        assert!(input.network_interfaces().is_empty() && input.block_device_mappings().is_empty());
        let input = built(&config, &placement(Market::OnDemand), Some(&image()), Memory::Plain);
        assert_eq!(
            (input.image_id(), input.instance_type().map(|t| t.as_str())),
            (Some("ami-1"), Some("m6a.large"))
        );
    }
}
