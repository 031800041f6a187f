//! The generated code in `src/gen` is what the generators make of `protos/` today.
//!
//! `PEERPODS_REGENERATE=1 cargo test -p peerpods-proto --test drift` writes it anew.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use ttrpc_codegen::{Codegen, Customize};

/// Set to 1 to rewrite the checked-in files in place of comparing them.
const REGENERATE: &str = "PEERPODS_REGENERATE";

/// The protos spoken over ttrpc.
const TTRPC: [&str; 7] = ["agent", "csi", "health", "hypervisor", "oci", "ttrpc", "types"];

/// The protos spoken over gRPC, with the file name their package gives them.
const GRPC: [(&str, &str); 2] = [("hypervisor", "hypervisor"), ("admin", "peerpods.v1")];

#[test]
fn checked_in_code_is_what_the_generators_make_of_the_protos() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh_dir = tempfile::tempdir().unwrap();
    generate_ttrpc(&root.join("protos"), &fresh_dir.path().join("ttrpc"));
    generate_grpc(&root.join("protos"), &fresh_dir.path().join("grpc"));
    let fresh = sources_below(fresh_dir.path());
    let checked_in = root.join("src/gen");

    if std::env::var_os(REGENERATE).as_deref() == Some(OsStr::new("1")) {
        write_all(&checked_in, &fresh);
    }
    let held = sources_below(&checked_in);

    let names: Vec<_> = fresh.keys().collect();
    assert_eq!(names, held.keys().collect::<Vec<_>>(), "other files than the generators write; {HINT}");
    let stale: Vec<_> = names.into_iter().filter(|name| fresh.get(*name) != held.get(*name)).collect();
    assert!(stale.is_empty(), "not what the generators make of protos/: {stale:?}; {HINT}");
}

const HINT: &str = "run `PEERPODS_REGENERATE=1 cargo test -p peerpods-proto --test drift`";

fn generate_ttrpc(protos: &Path, out: &Path) {
    fs::create_dir_all(out).unwrap();
    Codegen::new()
        .out_dir(out)
        .inputs(TTRPC.map(|name| protos.join(format!("{name}.proto"))))
        .include(protos)
        .rust_protobuf()
        .customize(Customize { async_all: true, ..Customize::default() })
        .run()
        .unwrap();
}

fn generate_grpc(protos: &Path, out: &Path) {
    fs::create_dir_all(out).unwrap();
    for (name, package) in GRPC {
        let descriptors = protox::compile([format!("{name}.proto")], [protos]).unwrap();
        tonic_prost_build::configure().out_dir(out).compile_fds(descriptors).unwrap();
        let (made, wanted) = (out.join(format!("{package}.rs")), out.join(format!("{name}.rs")));
        fs::rename(made, wanted).unwrap();
    }
}

/// Every Rust file below `dir`, by its path relative to it. rust-protobuf's own `mod.rs` is left out: ours is `src/ttrpc.rs`.
fn sources_below(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension() == Some(OsStr::new("rs"))
                && path.file_name() != Some(OsStr::new("mod.rs"))
            {
                found.insert(path.strip_prefix(dir).unwrap().to_owned(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

fn write_all(dir: &Path, files: &BTreeMap<PathBuf, String>) {
    for stale in sources_below(dir).keys().filter(|name| !files.contains_key(*name)) {
        fs::remove_file(dir.join(stale)).unwrap();
    }
    for (name, text) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}
