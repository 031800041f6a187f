//! What an AMI is: architecture, root device, whether its guest can be admitted by a token. Asked once, however many ask at once, and
//! kept for a while, so that a VM of the wrong architecture is refused before it is made.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_ec2::types;
use peerpods_podvm::image::GuestAdmission;
use peerpods_provider::{ErrorKind, ProviderError};
use tokio::time::Instant;

use crate::api::{Action, Api};
use crate::config;
use crate::failure;
use crate::site::Site;
use crate::tags;

/// How long an answer is believed: an AMI's tags may be changed, the AMI may go.
const BELIEVED: Duration = Duration::from_secs(600);

/// An AMI that VMs can boot from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) id: String,
    /// As instance types name it: `x86_64`, `arm64`.
    pub(crate) architecture: String,
    /// The root volume's device name; a volume asked for under another name would be a second disk.
    pub(crate) root_device: Option<String>,
    pub(crate) root_gib: u32,
    /// Whether it boots by UEFI, which encrypted memory needs.
    pub(crate) uefi: bool,
    pub(crate) admission: GuestAdmission,
}

/// AMIs that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Images {
    known: Mutex<HashMap<String, Arc<Known>>>,
}

/// The last answer about an AMI. Whoever asks EC2 holds the lock.
type Known = tokio::sync::Mutex<Option<(Result<Image, ProviderError>, Instant)>>;

impl Images {
    /// What the AMI is.
    ///
    /// # Errors
    /// `Invalid` for what is no AMI id or no usable AMI, `NotFound` when there is none.
    pub(crate) async fn get(&self, api: &Api, site: &Site, id: &str) -> Result<Image, ProviderError> {
        if !config::is_id("ami", id) {
            let text = format!("{id:?} is no AMI id: write ami- and 8 or 17 hexadecimal digits");
            return Err(refused(id, text));
        }
        let came = Instant::now();
        let known = self.entry(id);
        let mut last = known.lock().await;
        match &*last {
            // Asked while this waited: also a failure is its answer, or a burst would fail one after the other.
            Some((answer, at)) if *at > came => return copy(answer),
            Some((Ok(image), at)) if at.elapsed() < BELIEVED => return Ok(image.clone()),
            _ => {}
        }
        let answer = ask(api, site, id).await;
        *last = Some((copy(&answer), Instant::now()));
        answer
    }

    fn entry(&self, id: &str) -> Arc<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(id.to_owned()).or_default().clone()
    }
}

fn copy(answer: &Result<Image, ProviderError>) -> Result<Image, ProviderError> {
    match answer {
        Ok(image) => Ok(image.clone()),
        Err(error) => Err(failure::again(error)),
    }
}

async fn ask(api: &Api, site: &Site, id: &str) -> Result<Image, ProviderError> {
    let operation = format!("look at image {id}");
    let send = |client: aws_sdk_ec2::Client| client.describe_images().image_ids(id).send();
    let answer = api.call(&site.client, Action::Describe, &operation, send).await?;
    let Some(found) = answer.images().first() else {
        let text = format!("there is no AMI in {}", site.region);
        return Err(ProviderError::new(ErrorKind::NotFound, operation, text)
            .hint("set PODVM_AMI_ID to an AMI of this region and account"));
    };
    usable(id, found)
}

fn refused(id: &str, text: String) -> ProviderError {
    ProviderError::new(ErrorKind::Invalid, format!("look at image {id}"), text)
}

/// What EC2 told of an AMI, if VMs can boot from it.
fn usable(id: &str, found: &types::Image) -> Result<Image, ProviderError> {
    match found.state() {
        None | Some(types::ImageState::Available) => {}
        Some(state) => return Err(refused(id, format!("the AMI is {}, not available", state.as_str()))),
    }
    let Some(architecture) = found.architecture() else {
        return Err(refused(id, "the AMI names no architecture".to_owned()));
    };
    let root_device = found.root_device_name().map(str::to_owned);
    let of_root = |mapping: &&types::BlockDeviceMapping| mapping.device_name() == root_device.as_deref();
    let root = found.block_device_mappings().iter().find(of_root).and_then(types::BlockDeviceMapping::ebs);
    let gib = root.and_then(types::EbsBlockDevice::volume_size).unwrap_or(0);
    let has_token = tags::from_ec2(found.tags()).get(tags::GUEST_ADMISSION).map(String::as_str) == Some("1");
    Ok(Image {
        id: id.to_owned(),
        architecture: architecture.as_str().to_owned(),
        root_device,
        root_gib: u32::try_from(gib).unwrap_or(0),
        uefi: matches!(
            found.boot_mode(),
            Some(types::BootModeValues::Uefi | types::BootModeValues::UefiPreferred)
        ),
        admission: if has_token { GuestAdmission::Token } else { GuestAdmission::Unknown },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ami() -> aws_sdk_ec2::types::builders::ImageBuilder {
        let ebs = types::EbsBlockDevice::builder().volume_size(8).build();
        let other = types::EbsBlockDevice::builder().volume_size(100).build();
        types::Image::builder()
            .state(types::ImageState::Available)
            .architecture(types::ArchitectureValues::Arm64)
            .root_device_name("/dev/xvda")
            .block_device_mappings(
                types::BlockDeviceMapping::builder().device_name("/dev/sdb").ebs(other).build(),
            )
            .block_device_mappings(
                types::BlockDeviceMapping::builder().device_name("/dev/xvda").ebs(ebs).build(),
            )
    }

    #[test]
    fn an_ami_is_read_with_the_size_of_its_root_disk() {
        let image = usable("ami-1", &ami().build()).unwrap();
        assert_eq!((image.architecture.as_str(), image.root_gib, image.uefi), ("arm64", 8, false));
        let uefi = usable("ami-1", &ami().boot_mode(types::BootModeValues::UefiPreferred).build());
        assert!(uefi.unwrap().uefi);
        assert_eq!(
            (image.root_device.as_deref(), image.admission),
            (Some("/dev/xvda"), GuestAdmission::Unknown)
        );
    }

    #[test]
    fn the_tag_of_the_image_builder_says_that_the_guest_can_be_admitted_by_a_token() {
        let tag = types::Tag::builder().key(tags::GUEST_ADMISSION).value("1").build();
        assert_eq!(usable("ami-1", &ami().tags(tag).build()).unwrap().admission, GuestAdmission::Token);
    }

    #[test]
    fn an_ami_that_is_not_available_is_refused() {
        let error = usable("ami-1", &ami().state(types::ImageState::Pending).build()).unwrap_err();
        assert!(error.kind == ErrorKind::Invalid && error.to_string().contains("pending"), "{error}");
    }
}
