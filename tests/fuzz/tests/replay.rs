//! The corpora, and changes of their inputs, through the properties of the fuzz targets: without libFuzzer, in every `cargo test`.
//!
//! `PEERPODS_FUZZ_CHANGES` says how many changed inputs a target gets; they are the same in every run. An input that fails is kept in the system's
//! temporary directory and named; `make fuzz TARGET=… INPUT=…` plays it again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use fastrand::Rng;
use peerpods_fuzz::{TARGETS, Target, mutation, run};

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let dir = corpora().join(target.name);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn holds(target: &Target, input: &[u8]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| run(target, input))).map_err(|_| {
        let path = std::env::temp_dir().join(format!("peerpods-fuzz-{}", target.name));
        fs::write(&path, input).unwrap();
        format!("{}: `make fuzz TARGET={} INPUT={}`", target.name, target.name, path.display())
    })
}

fn replay(target: &Target, changes: usize) -> Result<(), String> {
    let inputs = corpus(target);
    assert!(!inputs.is_empty(), "{} has no corpus", target.name);
    inputs.iter().try_for_each(|input| holds(target, input))?;
    let mut rng = Rng::with_seed(4);
    for _ in 0..changes {
        let (input, other) = (&inputs[rng.usize(..inputs.len())], &inputs[rng.usize(..inputs.len())]);
        holds(target, &mutation::change(&mut rng, input, other))?;
    }
    Ok(())
}

#[test]
fn every_input_of_the_corpora_and_changes_of_them_hold() {
    let changes = std::env::var("PEERPODS_FUZZ_CHANGES").map_or(5_000, |text| text.parse().unwrap());
    let left = Mutex::new(TARGETS.iter());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(target) = { left.lock().unwrap().next() } {
                    failed.lock().unwrap().extend(replay(target, changes).err());
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn there_is_a_corpus_and_a_program_for_every_target_and_for_nothing_else() {
    let mut names: Vec<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    names.sort();
    let listed = |dir: &Path| {
        let name = |entry: fs::DirEntry| entry.path().file_stem().unwrap().to_str().unwrap().to_owned();
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    };
    assert_eq!(listed(&corpora()), names);
    assert_eq!(listed(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin")), names);
}
