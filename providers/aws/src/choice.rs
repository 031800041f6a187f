//! Which instance types a VM may have: the annotation's, else those that fit its size, cheapest first, else the default. Pure.
//!
//! What is cheap `prices` says; a tie goes to the type that was configured first. The refusals' texts are those that upstream's tests
//! know.

use peerpods_provider::VmSize;

use crate::catalog::MachineType;
use crate::config::{AwsConfig, Confidential};
use crate::prices::{self, Prices};

/// What a pod asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The type of its annotation.
    pub(crate) machine_type: Option<&'a str>,
    /// The size; zeros are "not said".
    pub(crate) size: VmSize,
    /// The architecture of its image; `None` when a launch template names the image.
    pub(crate) architecture: Option<&'a str>,
}

/// Why no type can be had, one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoType {
    /// A type that was not allowed was asked for.
    #[error("failed to verify instance type: {0}")]
    NotAllowed(String),
    /// Nothing is large enough.
    #[error(
        "failed to verify instance type: failed to get instance type based on {basis} annotations: no instance type found for the given {wanted}; {nearest}"
    )]
    NoFit { basis: &'static str, wanted: String, nearest: String },
    /// What would fit cannot boot the image, or cannot encrypt memory.
    #[error("{0}")]
    Unfit(String),
}

/// The types to try, best first; empty leaves the type to the launch template.
pub(crate) fn types<'a>(
    asked: Asked<'_>,
    config: &AwsConfig,
    catalog: &'a [MachineType],
    prices: &Prices<'_>,
) -> Result<Vec<&'a MachineType>, NoType> {
    let sized = asked.size != VmSize::default();
    let chosen = match asked.machine_type {
        Some(name) => vec![named(name, config, catalog)?],
        None if sized => fitting(asked.size, config, catalog, prices)?,
        None => by_default(config, catalog, prices),
    };
    able(chosen, asked, config)
}

fn allowed<'a>(config: &AwsConfig, catalog: &'a [MachineType]) -> Vec<&'a MachineType> {
    // An empty list allows the default only; the catalog then has nothing else.
    let listed = |known: &&MachineType| {
        config.instance_types.is_empty() || config.instance_types.contains(&known.name)
    };
    catalog.iter().filter(listed).collect()
}

fn named<'a>(name: &str, config: &AwsConfig, catalog: &'a [MachineType]) -> Result<&'a MachineType, NoType> {
    let found = allowed(config, catalog).into_iter().find(|known| known.name == name);
    found.ok_or_else(|| {
        NoType::NotAllowed(match config.instance_types.is_empty() {
            true => format!(
                "requested instance type (\"{name}\") is not default (\"{}\") and supported instance types list is empty",
                config.default_type().unwrap_or_default()
            ),
            false => format!("requested instance type (\"{name}\") is not part of supported instance types list"),
        })
    })
}

fn fitting<'a>(
    size: VmSize,
    config: &AwsConfig,
    catalog: &'a [MachineType],
    prices: &Prices<'_>,
) -> Result<Vec<&'a MachineType>, NoType> {
    let allowed = allowed(config, catalog);
    if allowed.is_empty() {
        // A launch template decides, and it is not ours to judge.
        return Ok(allowed);
    }
    // A machine with GPUs is never given to a pod that asked for none.
    let kind = |known: &&&MachineType| (known.gpus > 0) == (size.gpus > 0);
    let fits = |known: &&&MachineType| shortfall(size, known) == 0;
    let mut fitting: Vec<_> = allowed.iter().filter(kind).filter(fits).copied().collect();
    if fitting.is_empty() {
        return Err(no_fit(size, &allowed));
    }
    fitting.sort_by_key(|known| prices.of(known));
    Ok(fitting)
}

/// The default, then what else is allowed and no smaller.
fn by_default<'a>(
    config: &AwsConfig,
    catalog: &'a [MachineType],
    prices: &Prices<'_>,
) -> Vec<&'a MachineType> {
    let default = config.default_type();
    let Some(first) = catalog.iter().find(|known| Some(known.name.as_str()) == default) else {
        return Vec::new();
    };
    let same = VmSize { vcpus: first.vcpus, memory_mib: first.memory_mib, gpus: first.gpus };
    let larger = |known: &&MachineType| {
        known.name != first.name && known.gpus == first.gpus && shortfall(same, known) == 0
    };
    let mut others: Vec<_> = allowed(config, catalog).into_iter().filter(larger).collect();
    others.sort_by_key(|known| prices.of(known));
    std::iter::once(first).chain(others).collect()
}

/// Those that can boot the image and encrypt memory where that is required.
fn able<'a>(
    chosen: Vec<&'a MachineType>,
    asked: Asked<'_>,
    config: &AwsConfig,
) -> Result<Vec<&'a MachineType>, NoType> {
    let Some(first) = chosen.first().copied() else { return Ok(chosen) };
    let boots = |known: &&MachineType| {
        asked.architecture.is_none_or(|wanted| known.architectures.iter().any(|can| can == wanted))
    };
    let booting: Vec<_> = chosen.into_iter().filter(boots).collect();
    if booting.is_empty() {
        let image = asked.architecture.unwrap_or_default();
        let can = first.architectures.join(" and ");
        return Err(NoType::Unfit(format!(
            "the image is for {image}, instance type {} runs {can}",
            first.name
        )));
    }
    if config.confidential != Confidential::Required {
        return Ok(booting);
    }
    let encrypting: Vec<_> = booting.into_iter().filter(|known| known.sev_snp).collect();
    match encrypting.is_empty() {
        true => Err(NoType::Unfit(format!(
            "DISABLECVM is false, and instance type {} has no AMD SEV-SNP",
            first.name
        ))),
        false => Ok(encrypting),
    }
}

fn no_fit(size: VmSize, allowed: &[&MachineType]) -> NoType {
    let nearest = allowed.iter().min_by_key(|known| shortfall(size, known));
    let nearest = nearest.map_or_else(
        || "none is allowed".to_owned(),
        |t| {
            format!(
                "the nearest is {} with {} vCPUs, {} MiB and {} GPUs",
                t.name, t.vcpus, t.memory_mib, t.gpus
            )
        },
    );
    let (vcpus, memory) = (size.vcpus, size.memory_mib);
    let (basis, wanted) = match size.gpus {
        0 => ("vCPU and memory", format!("vcpus ({vcpus}) and memory ({memory})")),
        gpus => ("GPU, vCPU, and memory", format!("GPUs ({gpus}), vCPUs ({vcpus}), and memory ({memory})")),
    };
    NoType::NoFit { basis, wanted, nearest }
}

/// How much a type lacks of a size, by what that would cost.
fn shortfall(size: VmSize, known: &MachineType) -> u64 {
    prices::weight(
        size.gpus.saturating_sub(known.gpus),
        size.vcpus.saturating_sub(known.vcpus),
        size.memory_mib.saturating_sub(known.memory_mib),
    )
}

#[cfg(test)]
mod tests;
