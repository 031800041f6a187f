//! Who may import whom, held against what cargo sees. The table is the one of the design; dev-dependencies do not count, except that
//! `peerpods-test-require` and `peerpods-test-apiserver` may be nothing else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// Each crate of ours and the crates of ours it may import.
fn table() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let all_but = |own: &'static str, not: &[&str]| -> BTreeSet<&'static str> {
        CRATES.iter().copied().filter(|c| *c != own && !not.contains(c)).collect()
    };
    let some = |list: &[&'static str]| list.iter().copied().collect::<BTreeSet<_>>();
    BTreeMap::from([
        ("peerpods-proto", some(&[])),
        ("peerpods-podvm", some(&[])),
        ("peerpods-test-require", some(&[])),
        ("peerpods-test-apiserver", some(&[])),
        ("peerpods-podnet", some(&["peerpods-podvm"])),
        ("peerpods-agentlink", some(&["peerpods-podvm", "peerpods-proto"])),
        ("peerpods-provider", some(&["peerpods-podvm"])),
        ("peerpods-images", some(&["peerpods-podvm"])),
        ("peerpods-crds", some(&["peerpods-podvm"])),
        ("peerpods-operator", some(&["peerpods-podvm", "peerpods-crds", "peerpods-provider"])),
        ("peerpods-provider-qemu", some(&["peerpods-podvm", "peerpods-provider"])),
        ("peerpods-provider-aws", some(&["peerpods-podvm", "peerpods-provider"])),
        (
            "peerpods-hypervisor",
            some(&[
                "peerpods-proto",
                "peerpods-podvm",
                "peerpods-podnet",
                "peerpods-agentlink",
                "peerpods-provider",
            ]),
        ),
        (
            "peerpods-ledger",
            some(&["peerpods-podvm", "peerpods-crds", "peerpods-provider", "peerpods-hypervisor"]),
        ),
        (
            "peerpods-guest",
            some(&["peerpods-podvm", "peerpods-podnet", "peerpods-agentlink", "peerpods-proto"]),
        ),
        (
            "peerpods-miniagent",
            some(&["peerpods-podvm", "peerpods-podnet", "peerpods-agentlink", "peerpods-proto"]),
        ),
        (
            "peerpods",
            all_but(
                "peerpods",
                &[
                    "peerpods-guest",
                    "peerpods-miniagent",
                    "peerpods-tests",
                    "peerpods-test-require",
                    "peerpods-test-apiserver",
                    "peerpods-fuzz",
                ],
            ),
        ),
        ("peerpods-tests", all_but("peerpods-tests", &["peerpods-fuzz"])),
        (
            "peerpods-fuzz",
            all_but("peerpods-fuzz", &["peerpods-tests", "peerpods-miniagent", "peerpods-test-apiserver"]),
        ),
    ])
}

const CRATES: [&str; 19] = [
    "peerpods",
    "peerpods-agentlink",
    "peerpods-crds",
    "peerpods-fuzz",
    "peerpods-guest",
    "peerpods-hypervisor",
    "peerpods-images",
    "peerpods-ledger",
    "peerpods-miniagent",
    "peerpods-operator",
    "peerpods-podnet",
    "peerpods-podvm",
    "peerpods-proto",
    "peerpods-provider",
    "peerpods-provider-aws",
    "peerpods-provider-qemu",
    "peerpods-test-apiserver",
    "peerpods-test-require",
    "peerpods-tests",
];

/// What a crate must never see of the outside, at any depth of its ordinary dependencies.
const NEVER: [(&str, &[&str]); 8] = [
    ("peerpods-podvm", &["tokio", "kube", "rtnetlink", "rustls"]),
    ("peerpods-proto", &["kube"]),
    ("peerpods-guest", &["kube", "aws-config", "aws-sdk-ec2", "azure_core"]),
    ("peerpods-miniagent", &["kube", "aws-config", "aws-sdk-ec2", "azure_core", "rustls"]),
    ("peerpods-hypervisor", &["kube", "aws-config", "aws-sdk-ec2", "azure_core"]),
    ("peerpods-provider", &["aws-config", "aws-sdk-ec2", "azure_core", "kube"]),
    ("peerpods-crds", &["aws-config", "aws-sdk-ec2", "azure_core"]),
    ("peerpods-operator", &["rtnetlink", "aws-config", "aws-sdk-ec2", "azure_core"]),
];

fn metadata() -> cargo_metadata::Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    // Only what this platform builds has been downloaded.
    let platform = format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH);
    let options = vec!["--locked".into(), "--offline".into(), platform];
    MetadataCommand::new().manifest_path(manifest).other_options(options).exec().unwrap()
}

fn ours(package: &Package) -> BTreeSet<&str> {
    let normal = |d: &&cargo_metadata::Dependency| d.path.is_some() && d.kind != DependencyKind::Development;
    package.dependencies.iter().filter(normal).map(|d| d.name.as_str()).collect()
}

#[test]
fn every_crate_imports_only_what_the_table_allows() {
    let metadata = metadata();
    let table = table();
    let mut faults = Vec::new();
    let members: BTreeSet<_> = metadata.workspace_packages().iter().map(|p| p.name.as_str()).collect();
    assert_eq!(members, CRATES.into_iter().collect(), "a crate came or went: give it a row in the table");
    for package in metadata.workspace_packages() {
        let allowed = &table[package.name.as_str()];
        for import in ours(package) {
            if !allowed.contains(import) {
                faults.push(format!("{} imports {import}", package.name));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn what_must_never_be_seen_is_in_no_dependency_tree() {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().unwrap();
    let name = |id: &cargo_metadata::PackageId| metadata[id].name.as_str().to_owned();
    for (package, forbidden) in NEVER {
        let root = metadata.workspace_packages().into_iter().find(|p| p.name == package).unwrap();
        let mut seen = BTreeSet::new();
        let mut open = vec![root.id.clone()];
        while let Some(id) = open.pop() {
            let node = resolve.nodes.iter().find(|n| n.id == id).unwrap();
            for dep in &node.deps {
                let ordinary = dep.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal);
                if ordinary && seen.insert(name(&dep.pkg)) {
                    open.push(dep.pkg.clone());
                }
            }
        }
        let found: Vec<_> = forbidden.iter().filter(|f| seen.contains(**f)).collect();
        assert!(found.is_empty(), "{package} sees {found:?}");
    }
}
