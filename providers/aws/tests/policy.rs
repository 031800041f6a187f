//! The IAM policy in `deploy/` allows what this crate calls, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Calls that no line of ours makes and that EC2 checks with one that does: tags of what `RunInstances` makes.
const IMPLIED: &str = "ec2:CreateTags";

/// `describe_images` as IAM writes it.
fn action(method: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    format!("ec2:{}", method.split('_').map(capital).collect::<String>())
}

/// Every method called on a client in a source text: `client.describe_images()`; and the one call that is built apart from its client.
fn called(text: &str) -> BTreeSet<String> {
    // However rustfmt has broken the line.
    let text: String = text.split_whitespace().collect();
    let methods = text.split("client.").skip(1).filter_map(|rest| {
        let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        (name.contains('_') && rest[name.len()..].starts_with("()")).then_some(name)
    });
    let mut all: BTreeSet<String> = methods.map(|method| action(&method)).collect();
    if text.contains("RunInstancesInputBuilder::default()") {
        all.insert("ec2:RunInstances".to_owned());
    }
    // Of other services: the one that needs a permission; who the credentials are STS tells everybody.
    if text.contains("quotas.get_service_quota()") {
        all.insert("servicequotas:GetServiceQuota".to_owned());
    }
    all
}

fn sources(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![fs::read_to_string(path).unwrap()],
        })
        .collect()
}

fn allowed() -> BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/aws/iam-policy.json");
    let policy: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut all = BTreeSet::new();
    for statement in policy["Statement"].as_array().unwrap() {
        match &statement["Action"] {
            Value::String(one) => all.extend([one.clone()]),
            many => all.extend(many.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned())),
        }
    }
    all
}

#[test]
fn the_policy_allows_what_is_called_and_nothing_else() {
    let mut calls: BTreeSet<String> = sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")))
        .iter()
        .flat_map(|text| called(text))
        .collect();
    calls.insert(IMPLIED.to_owned());
    assert!(calls.len() >= 9, "the calls were not found: {calls:?}");
    assert_eq!(allowed(), calls);
}

#[test]
fn a_call_in_a_text_is_found() {
    let found = called("client\n  .describe_images().image_ids(id).send(); site.client, client.clone()");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["ec2:DescribeImages"]);
}
