//! Layers, precedence, and faults that are all told at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use peerpods::config::layers::{environment, file, flags};
use peerpods::config::{
    ConfigError, Faults, Origin, ProviderSettings, Request, Role, Settings, check, keys, load,
};
use peerpods_provider_qemu::QemuConfig;

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn flag(key: &str, text: &str) -> peerpods::config::FlagValue {
    peerpods::config::FlagValue { key: keys::find(key).unwrap(), text: text.to_owned() }
}

pub(crate) fn from(toml: &str, pairs: &[(&str, &str)], given: &[(&str, &str)]) -> Result<Settings, Faults> {
    let given: Vec<_> = given.iter().map(|(key, text)| flag(key, text)).collect();
    check(vec![file(Path::new("/f.toml"), toml), environment(&variables(pairs)), flags(&given)])
}

pub(crate) fn faults(toml: &str, pairs: &[(&str, &str)], given: &[(&str, &str)]) -> Vec<String> {
    match from(toml, pairs, given) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.0.iter().map(ToString::to_string).collect(),
    }
}

fn qemu(provider: ProviderSettings) -> QemuConfig {
    match provider {
        ProviderSettings::Qemu(config) => config,
        #[cfg(feature = "aws")]
        ProviderSettings::Aws(other) => unreachable!("not QEMU: {other:?}"),
    }
}

#[test]
fn with_nothing_said_the_defaults_hold() {
    let settings = from("", &[], &[]).unwrap();
    assert_eq!(settings.roles, [Role::Hypervisor]);
    assert_eq!(settings.hypervisor.socket, PathBuf::from("/run/peerpod/hypervisor.sock"));
    assert_eq!(settings.hypervisor.vxlan_port, 9000);
    assert_eq!(settings.hypervisor.limit_per_node, Some(10));
    let qemu = qemu(settings.provider);
    assert_eq!(qemu.bridge, "ppbr0");
}

#[test]
fn the_operator_knows_the_clouds_that_are_built_in() {
    let built_in: &[&str] = if cfg!(feature = "aws") { &["aws"] } else { &[] };
    assert_eq!(from("", &[], &[]).unwrap().operator.controllers.providers, built_in);
}

#[test]
fn every_key_of_the_table_is_read_and_shown_once() {
    let settings = from("", &[], &[]).unwrap();
    let shown: Vec<&str> = settings.shown.iter().map(|shown| shown.key).collect();
    let known: Vec<&str> = keys::KEYS.iter().map(|key| key.name).collect();
    assert_eq!(shown, known);
}

#[test]
fn the_later_layer_wins_and_its_place_is_remembered() {
    let toml = "# first line\nvxlan-port = 1\nforwarder-port = 2\nproxy-timeout = \"1m\"\n";
    let pairs = [("VXLAN_PORT", "3"), ("FORWARDER_PORT", "4")];
    let settings = from(toml, &pairs, &[("vxlan-port", "5")]).unwrap();
    assert_eq!(settings.hypervisor.vxlan_port, 5);
    assert_eq!(settings.hypervisor.agent_port, 4);
    assert_eq!(settings.hypervisor.start_deadline, Duration::from_secs(60));
    let source = |key: &str| settings.shown.iter().find(|shown| shown.key == key).unwrap().source.clone();
    assert_eq!(source("vxlan-port"), Origin::Flag { name: "--vxlan-port".to_owned() });
    assert_eq!(source("forwarder-port"), Origin::Variable { name: "FORWARDER_PORT".to_owned() });
    assert_eq!(source("proxy-timeout"), Origin::File { path: "/f.toml".into(), line: 4 });
    assert_eq!(source("socket"), Origin::Default);
}

#[test]
fn a_variable_set_to_nothing_counts_as_unset() {
    let settings = from("vxlan-port = 1234", &[("VXLAN_PORT", "")], &[]).unwrap();
    assert_eq!(settings.hypervisor.vxlan_port, 1234);
}

#[test]
fn the_names_of_peer_pods_cm_are_understood() {
    let pairs = [
        ("CLOUD_PROVIDER", "qemu"),
        ("REMOTE_HYPERVISOR_ENDPOINT", "/run/h.sock"),
        ("PODS_DIR", "/run/p"),
        ("PROXY_TIMEOUT", "1h30m"),
        ("TUNNEL_TYPE", "vxlan"),
        ("PEERPODS_LIMIT_PER_NODE", "3"),
    ];
    let settings = from("", &pairs, &[]).unwrap();
    assert_eq!(settings.hypervisor.socket, PathBuf::from("/run/h.sock"));
    assert_eq!(settings.hypervisor.pods_dir, PathBuf::from("/run/p"));
    assert_eq!(settings.hypervisor.start_deadline, Duration::from_secs(5_400));
    assert_eq!(settings.hypervisor.limit_per_node, Some(3));
    let unlimited = from("", &[("PEERPODS_LIMIT_PER_NODE", "-1")], &[]).unwrap();
    assert_eq!(unlimited.hypervisor.limit_per_node, None);
}

#[test]
fn tables_lists_and_numbers_of_the_file_are_read() {
    let toml =
        "roles = [\"hypervisor\"]\n[qemu]\naccel = \"tcg\"\nsubnet = \"10.9.0.0/24\"\ndefault-vcpus = 2\n";
    let settings = from(toml, &[], &[]).unwrap();
    let qemu = qemu(settings.provider);
    assert_eq!((qemu.subnet.to_string().as_str(), qemu.default_vcpus), ("10.9.0.0/24", 2));
}

#[test]
fn all_faults_of_all_layers_are_told_at_once() {
    let toml = "vxlan-prot = 1\nforwarder-port = 70000\n[qemu]\nsubnets = \"x\"\nsubnet = \"10.0.0.0/30\"\n";
    let pairs = [("PROXY_TIMEOUT", "5"), ("CLOUD_PROVIDER", "vsphere"), ("PODS_DIR", "relative")];
    let told = faults(toml, &pairs, &[("vxlan-port", "0"), ("roles", "hypervisor,conductor")]);
    let expected = [
        "vxlan-prot (/f.toml:1): there is no such key; did you mean \"vxlan-port\"?",
        "qemu.subnets (/f.toml:4): there is no such key; did you mean \"qemu.subnet\"?",
        "roles (flag --roles) is \"hypervisor,conductor\": there is no role \"conductor\"; known roles: hypervisor, operator, webhook",
        "pods-dir (variable PODS_DIR) is \"relative\": expected an absolute path",
        "forwarder-port (/f.toml:2) is \"70000\": expected a port number from 1 to 65535",
        "vxlan-port (flag --vxlan-port) is \"0\": expected a port number from 1 to 65535",
    ];
    for line in expected {
        assert!(told.iter().any(|fault| fault == line), "missing {line:?} in {told:#?}");
    }
    let starting = [
        "proxy-timeout (variable PROXY_TIMEOUT) is \"5\": expected a duration with units",
        "qemu.subnet (/f.toml:5)",
        "provider (variable CLOUD_PROVIDER) is \"vsphere\": expected qemu",
    ];
    for start in starting {
        assert!(told.iter().any(|fault| fault.starts_with(start)), "missing {start:?} in {told:#?}");
    }
    assert_eq!(told.len(), expected.len() + starting.len(), "{told:#?}");
}

#[test]
fn values_that_cannot_work_are_faults() {
    for (key, text) in [
        ("proxy-timeout", "0s"),
        ("vxlan-min-id", "16777216"),
        ("host-interface", "a-name-that-is-too-long"),
        ("pods-dir", "/run/with:colon"),
        ("pods-dir", "/run/so-long-that-no-agent-socket-fits"),
        ("cluster-id", "a/b"),
        ("initdata", "no base64"),
        ("log-level", "a=b=c"),
        ("log-level", "info,    conteÿÿÿ[data]"),
        ("log-level", "info,pöd=debug"),
        ("log-format", "yaml"),
        ("tunnel-type", "geneve"),
        ("qemu.accel", "hvf"),
        ("qemu.default-vcpus", "0"),
        ("roles", ""),
        ("peerpods-limit-per-node", "many"),
        ("link-program", "some/where"),
    ] {
        let told = faults("", &[], &[(key, text)]);
        assert!(told.len() == 1 && told[0].starts_with(key), "{key}={text}: {told:?}");
    }
    let long = format!("/{}", "s".repeat(107));
    assert_eq!(faults("", &[], &[("socket", &long)]).len(), 1);
}

#[test]
fn blanks_in_a_filter_of_log_lines_belong_to_no_target() {
    let settings = from("", &[], &[("log-level", " info, peerpods_podnet=debug ")]).unwrap();
    assert_eq!(settings.log_level.as_deref(), Some("info,peerpods_podnet=debug"));
}

#[test]
fn wrong_types_and_broken_toml_are_told_with_their_line() {
    assert_eq!(
        faults("\nvxlan-port = 1.5\n", &[], &[]),
        ["vxlan-port (/f.toml:2): is a TOML float; PORT is written as a string"]
    );
    let told = faults("vxlan-port = 1\nsocket =\n", &[], &[]);
    assert!(told.len() == 1 && told[0].starts_with("file (/f.toml:2): is no TOML"), "{told:?}");
    let told = faults("socket = [\"/a\", \"/b\"]", &[], &[]);
    assert!(told.len() == 1 && told[0].contains("expected one value, not a list"), "{told:?}");
}

#[test]
fn initdata_is_never_shown() {
    let good = peerpods_podvm::initdata::InitData::from_toml(
        "version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n\"aa.toml\" = \"secret\"\n",
    )
    .unwrap()
    .encode();
    let settings = from("", &[("INITDATA", &good)], &[]).unwrap();
    let shown = settings.shown.iter().find(|shown| shown.key == "initdata").unwrap();
    assert_eq!(shown.value, format!("(set, {} characters)", good.len()));
    assert_eq!(settings.hypervisor.initdata, Some(good));
    let told = faults("", &[("INITDATA", "c2VjcmV0")], &[]);
    assert!(told.len() == 1 && !told[0].contains("c2VjcmV0"), "{told:?}");
}

#[test]
fn a_file_that_is_named_must_be_there_and_the_default_need_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("peerpods.toml");
    let named = Request { file: Some(path.clone()), flags: Vec::new() };
    assert!(matches!(load(&named, &variables(&[])), Err(ConfigError::Read { .. })));
    std::fs::write(&path, "vxlan-port = 77").unwrap();
    assert_eq!(load(&named, &variables(&[])).unwrap().hypervisor.vxlan_port, 77);
    let by_variable = variables(&[("PEERPODS_CONFIG", path.to_str().unwrap())]);
    assert_eq!(load(&Request::default(), &by_variable).unwrap().hypervisor.vxlan_port, 77);
    assert_eq!(load(&named, &variables(&[("VXLAN_PORT", "78")])).unwrap().hypervisor.vxlan_port, 78);
}
