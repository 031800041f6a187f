//! The tree's own rules that no linter knows: file lengths, module docs, names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Past this a file is split by role, or its first lines say why not with the words "Long because".
const HARD_STOP: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !matches!(name.as_str(), "target" | "gen" | ".git" | "out") {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn all() -> Vec<PathBuf> {
    let mut found = Vec::new();
    sources(&root(), &mut found);
    assert!(found.len() > 50, "the tree was not found");
    found
}

#[test]
fn no_file_is_longer_than_the_hard_stop_without_a_reason() {
    let long: Vec<String> = all()
        .into_iter()
        .filter_map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().count();
            let reasoned = text.lines().take(15).any(|l| l.contains("Long because"));
            (lines > HARD_STOP && !reasoned).then(|| format!("{} has {lines} lines", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn every_module_begins_by_saying_what_it_is() {
    let silent: Vec<PathBuf> = all()
        .into_iter()
        .filter(|path| !fs::read_to_string(path).unwrap().trim_start().starts_with("//!"))
        .filter(|path| path.file_name().is_none_or(|n| n != "tests.rs"))
        .collect();
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn no_module_is_named_after_nothing() {
    let vague = ["utils", "util", "common", "helper", "helpers", "manager", "misc"];
    let named: Vec<PathBuf> = all()
        .into_iter()
        .filter(|p| p.file_stem().is_some_and(|s| vague.contains(&s.to_string_lossy().as_ref())))
        .collect();
    assert!(named.is_empty(), "{named:#?}");
}
