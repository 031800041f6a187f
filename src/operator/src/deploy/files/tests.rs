use std::path::{Path, PathBuf};

use super::*;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

#[test]
fn the_files_in_deploy_are_these() {
    for file in all() {
        let there = std::fs::read_to_string(deploy().join(file.path)).unwrap_or_default();
        assert_eq!(there, file.yaml().unwrap(), "make manifests writes {}", file.path);
    }
    for place in ["operator", "openshift"] {
        let made = all().iter().filter(|file| file.path.starts_with(place)).count();
        assert_eq!(std::fs::read_dir(deploy().join(place)).unwrap().count(), made, "a file nobody makes");
    }
}

#[test]
fn the_readme_has_the_table_of_rights() {
    let readme = std::fs::read_to_string(deploy().join("README.md")).unwrap_or_default();
    assert!(readme.contains(&rights()), "make manifests writes it");
}

#[test]
fn nobody_has_a_right_to_everything() {
    for holder in HOLDERS {
        for right in holder.rights {
            let words = [&[right.group, right.resource], right.verbs].concat();
            assert!(!words.contains(&"*"), "{right:?}");
            let secrets = right.resource == "secrets" && right.scope == Scope::Cluster;
            assert!(!secrets, "Secrets of the whole cluster: {right:?}");
            let nodes = right.resource.starts_with("nodes") && right.verbs.contains(&"delete");
            assert!(!nodes, "{right:?}");
        }
    }
}

#[test]
fn every_pod_has_an_account_that_is_there() {
    let objects: Vec<Value> = all().into_iter().flat_map(|file| file.objects).collect();
    let of_kind = |kind: &str| -> Vec<&Value> { objects.iter().filter(|one| one["kind"] == kind).collect() };
    let accounts: Vec<&Value> =
        of_kind("ServiceAccount").iter().map(|one| &one["metadata"]["name"]).collect();
    let operator = &of_kind("Deployment")[0]["spec"]["template"]["spec"];
    assert!(accounts.contains(&&operator["serviceAccountName"]));
    for account in [crate::peerpodconfig::daemon_set::ACCOUNT, crate::names::MONITOR_ACCOUNT] {
        assert!(accounts.iter().any(|one| **one == account), "{account}");
    }
    for binding in of_kind("RoleBinding").into_iter().chain(of_kind("ClusterRoleBinding")) {
        let role = &binding["roleRef"];
        let there = of_kind(role["kind"].as_str().unwrap());
        assert!(there.iter().any(|one| one["metadata"]["name"] == role["name"]), "{role}");
    }
}

#[test]
fn the_operator_may_hand_on_what_the_webhook_is_given() {
    use crate::webhook::certificates::Source;
    use crate::webhook::configuration::{MatchConditions, Setup, access};
    let setup = Setup {
        user: None,
        namespace: crate::names::NAMESPACE.to_owned(),
        image: workload::IMAGE.to_owned(),
        pods: crate::webhook::pods::Settings::default(),
        source: Source::Own,
        match_conditions: MatchConditions::Supported,
    };
    let made = access(&setup);
    let has = |scope: &[Scope], rule: &k8s_openapi::api::rbac::v1::PolicyRule, verb: &str| {
        HOLDERS[0].rights.iter().filter(|right| scope.contains(&right.scope)).any(|right| {
            let names = rule.resource_names.iter().flatten().all(|name| right.names.contains(&name.as_str()));
            rule.api_groups.iter().flatten().all(|group| group == right.group)
                && rule.resources.iter().flatten().all(|resource| resource == right.resource)
                && right.verbs.contains(&verb)
                && (right.names.is_empty() || (rule.resource_names.is_some() && names))
        })
    };
    let local = (made.role.rules, [Scope::Cluster, Scope::Own].as_slice());
    let global = (made.cluster_role.rules, [Scope::Cluster].as_slice());
    for (rules, scope) in [local, global] {
        for rule in rules.unwrap() {
            for verb in &rule.verbs {
                assert!(has(scope, &rule, verb), "nobody may give what they have not: {verb} {rule:?}");
            }
        }
    }
}
