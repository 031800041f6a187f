//! The IAM policy in `deploy/` allows what this crate calls, and nothing else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Calls that no line of ours makes and that EC2 checks with one that does: tags of what `RunInstances` makes.
const IMPLIED: &str = "ec2:CreateTags";

/// The policy whoever runs the service needs.
const POLICY: &str = "iam-policy.json";
/// The tag of everything of ours.
const MARK: &str = "io.peerpods.managed";

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

fn all_sources() -> Vec<String> {
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")))
}

/// The statements of a policy.
fn statements(file: &str) -> Vec<Value> {
    let path = format!("{}/../../deploy/aws/{file}", env!("CARGO_MANIFEST_DIR"));
    let policy: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    policy["Statement"].as_array().unwrap().clone()
}

/// One text or a list of them.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        many => many.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect(),
    }
}

/// The kinds of resource a statement is about: `instance` of `arn:*:ec2:*:*:instance/*`.
fn kinds(statement: &Value) -> BTreeSet<String> {
    let kind = |arn: String| arn.rsplit(':').next().unwrap().trim_end_matches("/*").to_owned();
    texts(&statement["Resource"]).into_iter().map(kind).collect()
}

/// What a statement holds its actions to.
fn held_to(statement: &Value, condition: &str) -> Option<String> {
    statement["Condition"]["StringEquals"][condition].as_str().map(str::to_owned)
}

/// The statements that allow an action; there is at least one.
fn about(action: &str) -> Vec<Value> {
    let mut found = statements(POLICY);
    found.retain(|statement| texts(&statement["Action"]).iter().any(|allowed| allowed == action));
    assert!(!found.is_empty(), "nothing allows {action}");
    found
}

/// The kinds of what `RunInstances` makes and we tag: `NetworkInterface` of the request as `network-interface`.
fn made() -> BTreeSet<String> {
    let request = include_str!("../src/request.rs").split("#[cfg(test)]").next().unwrap();
    let kind = |rest: &str| -> String {
        let letters = rest.chars().take_while(char::is_ascii_alphabetic);
        let dashed = letters
            .flat_map(|c| c.is_ascii_uppercase().then_some('-').into_iter().chain([c.to_ascii_lowercase()]));
        dashed.skip(1).collect()
    };
    request.split("ResourceType::").skip(1).map(kind).collect()
}

#[test]
fn the_policy_allows_what_is_called_and_nothing_else() {
    let mut calls: BTreeSet<String> = all_sources().iter().flat_map(|text| called(text)).collect();
    calls.insert(IMPLIED.to_owned());
    assert!(calls.len() >= 9, "the calls were not found: {calls:?}");
    let allowed: BTreeSet<String> =
        statements(POLICY).iter().flat_map(|statement| texts(&statement["Action"])).collect();
    assert_eq!(allowed, calls);
}

#[test]
fn only_looking_is_allowed_on_everything() {
    for statement in statements(POLICY) {
        let harmless =
            |action: &String| action.starts_with("ec2:Describe") || action.starts_with("servicequotas:Get");
        let looks = texts(&statement["Action"]).iter().all(harmless);
        let everything = texts(&statement["Resource"]).iter().any(|resource| resource == "*");
        assert_eq!(everything, looks, "{statement:#}");
    }
}

#[test]
fn what_is_made_has_to_carry_the_mark_by_which_it_may_be_ended() {
    assert!(all_sources().iter().any(|text| text.contains(&format!("MANAGED: &str = {MARK:?}"))));
    let requested = format!("aws:RequestTag/{MARK}");
    let makes = about("ec2:RunInstances");
    let (marked, unmarked): (Vec<_>, Vec<_>) =
        makes.iter().partition(|statement| held_to(statement, &requested).as_deref() == Some("true"));
    assert_eq!(made().len(), 3, "the tagged kinds were not found: {:?}", made());
    assert_eq!(marked.iter().flat_map(|statement| kinds(statement)).collect::<BTreeSet<_>>(), made());
    assert!(unmarked.iter().all(|statement| kinds(statement).is_disjoint(&made())), "{unmarked:#?}");
    for action in ["ec2:TerminateInstances", "ec2:ModifyInstanceAttribute"] {
        for statement in about(action) {
            let mark = held_to(&statement, &format!("aws:ResourceTag/{MARK}"));
            assert_eq!(mark.as_deref(), Some("true"), "{action}: {statement:#}");
        }
    }
}

#[test]
fn tags_may_be_written_on_what_is_being_made_only() {
    for statement in about("ec2:CreateTags") {
        assert_eq!(kinds(&statement), made());
        assert_eq!(held_to(&statement, "ec2:CreateAction").as_deref(), Some("RunInstances"));
        assert_eq!(held_to(&statement, &format!("aws:RequestTag/{MARK}")).as_deref(), Some("true"));
    }
}

/// Only a launch template can give VMs a role: it is a policy of its own, for one role.
#[test]
fn passing_a_role_is_a_policy_of_its_own_for_one_role_and_ec2() {
    assert!(all_sources().iter().any(|text| text.contains("set_launch_template(")));
    assert!(!all_sources().iter().any(|text| text.contains("iam_instance_profile")));
    let with_profile = statements("iam-policy-instance-profile.json");
    let [statement] = with_profile.as_slice() else { panic!("{with_profile:#?}") };
    assert_eq!(texts(&statement["Action"]), ["iam:PassRole"]);
    assert_eq!(held_to(statement, "iam:PassedToService").as_deref(), Some("ec2.amazonaws.com"));
    assert!(texts(&statement["Resource"]).iter().all(|role| role.contains(":role/") && !role.contains('*')));
}

#[test]
fn a_call_in_a_text_is_found() {
    let found = called("client\n  .describe_images().image_ids(id).send(); site.client, client.clone()");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["ec2:DescribeImages"]);
}
