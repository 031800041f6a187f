//! The instance types VMs may have, with their sizes: what is configured, as EC2 describes it. Asked once; types do not change.

use aws_sdk_ec2::types::{InstanceTypeInfo, SupportedAdditionalProcessorFeature};
use peerpods_provider::{ErrorKind, ProviderError};
use tokio::sync::OnceCell;

use crate::api::{Action, Api};
use crate::config::AwsConfig;
use crate::site::Site;

/// An instance type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MachineType {
    pub(crate) name: String,
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u64,
    pub(crate) gpus: u32,
    /// As AMIs name them; more than one for types that also run 32-bit images.
    pub(crate) architectures: Vec<String>,
    /// Whether its memory can be encrypted by AMD SEV-SNP.
    pub(crate) sev_snp: bool,
}

/// The types of this configuration.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    known: OnceCell<Vec<MachineType>>,
}

impl Catalog {
    /// All types, in the order they were configured, the default first. Empty where a launch template decides and no type is named.
    ///
    /// # Errors
    /// Also when EC2 does not know one of them, with its name.
    pub(crate) async fn types(
        &self,
        api: &Api,
        site: &Site,
        config: &AwsConfig,
    ) -> Result<&[MachineType], ProviderError> {
        self.known.get_or_try_init(|| ask(api, site, names(config))).await.map(Vec::as_slice)
    }
}

/// The names to ask for, each once.
pub(crate) fn names(config: &AwsConfig) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let all =
        config.default_type().map(str::to_owned).into_iter().chain(config.instance_types.iter().cloned());
    for name in all {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

async fn ask(api: &Api, site: &Site, names: Vec<String>) -> Result<Vec<MachineType>, ProviderError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let operation = format!("look at instance types {}", names.join(", "));
    let mut found = Vec::new();
    // EC2 takes 100 names a call.
    for some in names.chunks(100) {
        let wanted: Vec<_> = some.iter().map(|name| name.as_str().into()).collect();
        let send = |client: aws_sdk_ec2::Client| {
            client.describe_instance_types().set_instance_types(Some(wanted.clone())).send()
        };
        let answer = api.call(&site.client, Action::Describe, &operation, send).await.map_err(advise)?;
        found.extend(answer.instance_types().iter().map(read));
    }
    match names.iter().find(|name| !found.iter().any(|known| known.name == **name)) {
        None => {
            found.sort_by_key(|known| names.iter().position(|name| *name == known.name));
            Ok(found)
        }
        Some(name) => {
            let text = format!("there is no instance type {name} in {}", site.region);
            Err(advise(ProviderError::new(ErrorKind::Invalid, operation, text)))
        }
    }
}

fn advise(error: ProviderError) -> ProviderError {
    match error.kind {
        ErrorKind::Invalid | ErrorKind::NotFound => ProviderError {
            kind: ErrorKind::Invalid,
            ..error.hint("correct PODVM_INSTANCE_TYPE or PODVM_INSTANCE_TYPES")
        },
        _ => error,
    }
}

fn read(info: &InstanceTypeInfo) -> MachineType {
    let vcpus = info.v_cpu_info().and_then(|cpu| cpu.default_v_cpus()).unwrap_or(0);
    let memory = info.memory_info().and_then(|memory| memory.size_in_mib()).unwrap_or(0);
    let gpus =
        info.gpu_info().map_or(0, |gpu| gpu.gpus().iter().filter_map(|device| device.count()).sum::<i32>());
    let processor = info.processor_info();
    let architectures = processor.map(|cpu| cpu.supported_architectures()).unwrap_or_default();
    let features = processor.map(|cpu| cpu.supported_features()).unwrap_or_default();
    MachineType {
        name: info.instance_type().map(|name| name.as_str().to_owned()).unwrap_or_default(),
        vcpus: u32::try_from(vcpus).unwrap_or(0),
        memory_mib: u64::try_from(memory).unwrap_or(0),
        gpus: u32::try_from(gpus).unwrap_or(0),
        architectures: architectures.iter().map(|name| name.as_str().to_owned()).collect(),
        sev_snp: features.contains(&SupportedAdditionalProcessorFeature::AmdSevSnp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_asked_for_first_and_each_type_once() {
        let config = AwsConfig {
            instance_type: Some("t3.medium".to_owned()),
            instance_types: ["m6a.large", "t3.medium", "m6a.large"].map(str::to_owned).to_vec(),
            ..AwsConfig::default()
        };
        assert_eq!(names(&config), ["t3.medium", "m6a.large"]);
        let template = AwsConfig { launch_template: Some("kata".to_owned()), ..AwsConfig::default() };
        assert_eq!(names(&template), Vec::<String>::new());
    }
}
