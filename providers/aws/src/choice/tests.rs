use proptest::prelude::*;

use super::*;
use crate::prices::Price;

fn machine(name: &str, vcpus: u32, gib: u64, gpus: u32) -> MachineType {
    MachineType {
        name: name.to_owned(),
        vcpus,
        memory_mib: gib * 1024,
        gpus,
        architectures: vec!["x86_64".to_owned()],
        sev_snp: name.contains("6a"),
    }
}

fn catalog() -> Vec<MachineType> {
    let mut arm = machine("t4g.medium", 2, 4, 0);
    arm.architectures = vec!["arm64".to_owned()];
    vec![
        machine("t3.medium", 2, 4, 0),
        machine("c6a.2xlarge", 8, 16, 0),
        machine("r5.xlarge", 4, 32, 0),
        machine("m6a.large", 2, 8, 0),
        machine("g4dn.xlarge", 4, 16, 1),
        machine("g4dn.12xlarge", 48, 192, 4),
        arm,
    ]
}

fn config() -> AwsConfig {
    AwsConfig {
        instance_type: Some("t3.medium".to_owned()),
        instance_types: catalog().into_iter().map(|known| known.name).collect(),
        ..AwsConfig::default()
    }
}

fn asked(size: VmSize) -> Asked<'static> {
    Asked { machine_type: None, size, architecture: Some("x86_64") }
}

fn size(vcpus: u32, gib: u64, gpus: u32) -> VmSize {
    VmSize { vcpus, memory_mib: gib * 1024, gpus }
}

fn names(asked: Asked<'_>, config: &AwsConfig) -> Result<Vec<String>, String> {
    let catalog = catalog();
    let chosen = types(asked, config, &catalog, &Prices::of_config(config)).map_err(|e| e.to_string())?;
    Ok(chosen.into_iter().map(|known| known.name.clone()).collect())
}

#[test]
fn the_cheapest_that_fits_is_first_and_the_dearer_follow() {
    assert_eq!(names(asked(size(2, 5, 0)), &config()).unwrap(), ["m6a.large", "r5.xlarge", "c6a.2xlarge"]);
    // Memory-first order, as upstream has it, would take the one with twice the processors.
    assert_eq!(names(asked(size(4, 16, 0)), &config()).unwrap(), ["r5.xlarge", "c6a.2xlarge"]);
}

#[test]
fn configured_prices_go_before_the_estimate() {
    let price = |text: &str| text.parse::<Price>().unwrap();
    let prices = [("m6a.large", "0.5"), ("c6a.2xlarge", "0.01")];
    let prices = prices.map(|(name, text)| (name.to_owned(), price(text))).into();
    let config = AwsConfig { prices, ..config() };
    assert_eq!(names(asked(size(2, 5, 0)), &config).unwrap(), ["c6a.2xlarge", "r5.xlarge", "m6a.large"]);
}

#[test]
fn processors_alone_or_memory_alone_are_honoured() {
    assert_eq!(names(asked(size(3, 0, 0)), &config()).unwrap()[0], "r5.xlarge");
    assert_eq!(names(asked(size(0, 6, 0)), &config()).unwrap()[0], "m6a.large");
}

#[test]
fn gpus_go_to_those_who_ask_for_them_and_to_nobody_else() {
    assert_eq!(names(asked(size(0, 0, 1)), &config()).unwrap(), ["g4dn.xlarge", "g4dn.12xlarge"]);
    assert!(names(asked(size(16, 64, 0)), &config()).is_err());
}

#[test]
fn what_nothing_fits_names_the_nearest_in_upstreams_words() {
    let error = names(asked(size(2, 64, 0)), &config()).unwrap_err();
    assert!(
        error.starts_with(
            "failed to verify instance type: failed to get instance type based on vCPU and memory annotations: \
             no instance type found for the given vcpus (2) and memory (65536)"
        ),
        "{error}"
    );
    let error = names(asked(size(0, 0, 9)), &config()).unwrap_err();
    assert!(
        error.contains("no instance type found for the given GPUs (9), vCPUs (0), and memory (0)"),
        "{error}"
    );
    assert!(error.contains("nearest is g4dn.12xlarge"), "{error}");
}

#[test]
fn an_annotation_must_name_an_allowed_type() {
    let by = |name| Asked { machine_type: Some(name), ..asked(VmSize::default()) };
    assert_eq!(names(by("m6a.large"), &config()).unwrap(), ["m6a.large"]);
    let error = names(by("m6a.metal"), &config()).unwrap_err();
    assert!(
        error.ends_with(
            "requested instance type (\"m6a.metal\") is not part of supported instance types list"
        )
    );
    let alone = AwsConfig { instance_types: Vec::new(), ..config() };
    let catalog = vec![machine("t3.medium", 2, 4, 0)];
    let error = types(by("m6a.large"), &alone, &catalog, &Prices::of_config(&alone)).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "requested instance type (\"m6a.large\") is not default (\"t3.medium\") and supported instance types list is empty"
        ),
        "{error}"
    );
}

#[test]
fn nothing_asked_is_the_default_and_then_what_is_no_smaller() {
    assert_eq!(
        names(asked(VmSize::default()), &config()).unwrap(),
        ["t3.medium", "m6a.large", "r5.xlarge", "c6a.2xlarge"]
    );
}

#[test]
fn an_image_of_another_architecture_is_refused_and_says_so() {
    let arm = Asked { architecture: Some("arm64"), machine_type: Some("m6a.large"), size: VmSize::default() };
    assert_eq!(
        names(arm, &config()).unwrap_err(),
        "the image is for arm64, instance type m6a.large runs x86_64"
    );
    let sized = Asked { architecture: Some("arm64"), ..asked(size(2, 4, 0)) };
    assert_eq!(names(sized, &config()).unwrap(), ["t4g.medium"]);
}

#[test]
fn required_confidential_memory_leaves_only_types_that_have_it() {
    let config = AwsConfig { confidential: Confidential::Required, ..config() };
    assert_eq!(names(asked(size(2, 4, 0)), &config).unwrap(), ["m6a.large", "c6a.2xlarge"]);
    let t3 = Asked { machine_type: Some("t3.medium"), ..asked(VmSize::default()) };
    assert!(names(t3, &config).unwrap_err().contains("SEV-SNP"));
}

#[test]
fn a_launch_template_without_a_type_decides_itself() {
    let template = AwsConfig { launch_template: Some("kata".to_owned()), ..AwsConfig::default() };
    assert_eq!(
        types(asked(VmSize::default()), &template, &[], &Prices::of_config(&template)),
        Ok(Vec::new())
    );
}

proptest! {
    #[test]
    fn whatever_is_chosen_fits_and_nothing_cheaper_does(vcpus in 0_u32..64, gib in 0_u64..256, gpus in 0_u32..5) {
        let wanted = size(vcpus, gib, gpus);
        prop_assume!(wanted != VmSize::default());
        let (config, catalog) = (config(), catalog());
        let boots = |t: &&MachineType| t.architectures == ["x86_64"] && (t.gpus > 0) == (gpus > 0);
        let fits = |t: &&MachineType| t.vcpus >= vcpus && t.memory_mib >= gib * 1024 && t.gpus >= gpus;
        let prices = Prices::of_config(&config);
        let cheapest = catalog.iter().filter(boots).filter(fits).map(|known| prices.of(known)).min();
        let chosen = types(asked(wanted), &config, &catalog, &prices).ok();
        prop_assert_eq!(chosen.map(|chosen| prices.of(chosen[0])), cheapest);
    }
}
