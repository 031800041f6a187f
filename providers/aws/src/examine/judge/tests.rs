use peerpods_podvm::image::GuestAdmission;

use super::super::observe::Trials;
use super::super::trial::Verdict;
use super::*;
use crate::ports::{Port, Protocol, Rule, Standing, Told};

fn image() -> Image {
    Image {
        id: "ami-1".to_owned(),
        architecture: "x86_64".to_owned(),
        root_device: None,
        root_gib: 8,
        uefi: false,
        admission: GuestAdmission::Unknown,
    }
}

fn machine(name: &str, architecture: &str) -> MachineType {
    MachineType {
        name: name.to_owned(),
        vcpus: 2,
        memory_mib: 4096,
        gpus: 0,
        architectures: vec![architecture.to_owned()],
        sev_snp: false,
    }
}

fn error(kind: ErrorKind, code: &str) -> ProviderError {
    ProviderError::new(kind, "look", "no").code(code)
}

fn seen() -> Seen {
    Seen {
        region: "eu-central-1".to_owned(),
        identity: Err(error(ErrorKind::Transient, "x")),
        image: Some(Ok(image())),
        types: Ok(vec![machine("m6a.large", "x86_64")]),
        subnet_ids: Vec::new(),
        subnets: Ok(Vec::new()),
        ports: Ok(Vec::new()),
        quota: Ok(None),
        ours: Ok(None),
        trials: Trials {
            placement: None,
            run: Verdict::Allowed,
            terminate: Verdict::Allowed,
            modify: Verdict::Allowed,
            open: Verdict::Allowed,
            close: Verdict::Allowed,
            volumes: Verdict::Allowed,
            spot_prices: None,
        },
    }
}

fn needs() -> Needs {
    Needs { ports: Vec::new(), most_vms: Some(10) }
}

fn graded(seen: &Seen, config: &AwsConfig, check: &str) -> Vec<(Grade, String)> {
    let all = findings(seen, config, &needs()).into_iter().filter(|finding| finding.check == check);
    all.map(|finding| (finding.grade, format!("{} → {}", finding.found, finding.fix.unwrap_or_default())))
        .collect()
}

#[test]
fn who_the_credentials_are_is_worth_a_warning_and_no_more() {
    let [(grade, text)] = &graded(&seen(), &AwsConfig::default(), "aws credentials")[..] else { panic!() };
    assert!(*grade == Grade::Warning && text.contains("STS"), "{text}");
}

#[test]
fn a_type_that_cannot_run_the_image_is_a_warning_and_an_error_when_none_is_left() {
    let mut seen = seen();
    seen.types = Ok(vec![machine("m6a.large", "x86_64"), machine("t4g.large", "arm64")]);
    let config = AwsConfig { instance_types: vec!["t4g.large".to_owned()], ..AwsConfig::default() };
    let grades: Vec<Grade> =
        graded(&seen, &config, "aws types").into_iter().map(|(grade, _)| grade).collect();
    assert_eq!(grades, [Grade::Ok, Grade::Warning]);
    seen.types = Ok(vec![machine("m6a.large", "arm64")]);
    let told = graded(&seen, &AwsConfig::default(), "aws types");
    assert!(
        told.iter().any(|(grade, text)| *grade == Grade::Error && text.contains("PODVM_AMI_ID")),
        "{told:?}"
    );
}

#[test]
fn what_may_not_be_looked_at_is_an_error_that_names_the_action() {
    let mut seen = seen();
    seen.image = Some(Err(error(ErrorKind::Denied, "UnauthorizedOperation")));
    let told = graded(&seen, &AwsConfig::default(), "aws permission");
    assert!(
        told.iter()
            .any(|(grade, text)| *grade == Grade::Error && text.contains("ec2:DescribeImages: denied")),
        "{told:?}"
    );
    let [(grade, text)] = &graded(&seen, &AwsConfig::default(), "aws image")[..] else { panic!() };
    assert!(*grade == Grade::Error && text.contains("iam-policy.json"), "{text}");
}

#[test]
fn encrypted_memory_needs_an_image_that_boots_by_uefi_where_it_is_required() {
    for (confidential, grade) in [
        (Confidential::Required, Grade::Error),
        (Confidential::WherePossible, Grade::Ok),
        (Confidential::Off, Grade::Ok),
    ] {
        let config = AwsConfig { confidential, ..AwsConfig::default() };
        assert_eq!(graded(&seen(), &config, "aws image")[0].0, grade, "{confidential:?}");
    }
}

#[test]
fn a_port_that_is_closed_is_an_error_only_where_it_is_known_for_whom_it_must_be_open() {
    let rule = |told, standing| Rule {
        group: "sg-1".to_owned(),
        port: Port { protocol: Protocol::Udp, number: 9000 },
        source: "sg-2".to_owned(),
        told,
        standing,
    };
    for (told, standing, grade, fix) in [
        (Told::Metadata, Standing::Open, Grade::Ok, ""),
        (Told::Metadata, Standing::Missing, Grade::Error, "peerpods ports open aws"),
        (Told::Opened, Standing::Open, Grade::Ok, "earlier"),
        (Told::Assumed, Standing::Missing, Grade::Warning, "peerpods ports open aws --from GROUP"),
        (Told::Configured, Standing::Unknown("pl-1".to_owned()), Grade::Warning, "pl-1"),
    ] {
        let mut seen = seen();
        seen.ports = Ok(vec![rule(told, standing)]);
        let [(found, text)] = &graded(&seen, &AwsConfig::default(), "aws ports")[..] else { panic!() };
        assert!(*found == grade && text.contains(fix), "{text}");
    }
}

#[test]
fn what_nothing_can_be_asked_without_is_one_finding_with_its_fix() {
    for (kind, check) in [
        (ErrorKind::Transient, "aws region"),
        (ErrorKind::Denied, "aws credentials"),
        (ErrorKind::Invalid, "aws region"),
    ] {
        let found = blind(&error(kind, "x"));
        assert!(found.check == check && found.grade == Grade::Error && found.fix.is_some(), "{found:?}");
    }
}
