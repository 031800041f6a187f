use std::path::PathBuf;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhook;
use serde::Serialize;

use super::*;

fn setup() -> Setup {
    Setup {
        namespace: "openshift-sandboxed-containers-operator".to_owned(),
        image: "quay.io/peerpods/peerpods:test".to_owned(),
        pods: Settings::default(),
        source: Source::Own,
        match_conditions: MatchConditions::Supported,
        user: Some(USER),
    }
}

/// Compares with the file; `UPDATE_GOLDEN=1` writes it.
fn golden(name: &str, object: &impl Serialize) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/webhook").join(name);
    let now = serde_saphyr::to_string(object).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(kept, now, "{} is not what is built; UPDATE_GOLDEN=1 writes it", path.display());
}

#[test]
fn every_object_is_as_it_is_kept() {
    let setup = setup();
    golden("mutatingwebhookconfiguration.yaml", &mutating(&setup));
    let operators = operator::address(&setup.namespace);
    golden(
        "validatingwebhookconfiguration.yaml",
        &validating(&operators, &Source::Own, setup.match_conditions),
    );
    let pods = [("app".to_owned(), "operator".to_owned())].into();
    golden("operator-service.yaml", &operator::service(&setup.namespace, pods, &Source::Own));
    golden("deployment.yaml", &deployment(&setup));
    golden("service.yaml", &service(&setup));
    golden("poddisruptionbudget.yaml", &disruption_budget(&setup));
    let Access { account, role, role_binding, cluster_role, cluster_role_binding } = access(&setup);
    golden("serviceaccount.yaml", &account);
    golden("role.yaml", &role);
    golden("rolebinding.yaml", &role_binding);
    golden("clusterrole.yaml", &cluster_role);
    golden("clusterrolebinding.yaml", &cluster_role_binding);
}

#[test]
fn an_older_api_server_asks_about_every_pod_and_never_waits_for_us() {
    let setup = Setup { match_conditions: MatchConditions::Unsupported, ..setup() };
    golden("mutatingwebhookconfiguration-before-1.28.yaml", &mutating(&setup));
    assert!(
        setup
            .match_conditions
            .warning()
            .is_some_and(|warning| warning.contains("older than Kubernetes 1.28"))
    );
    let policy = |setup: &Setup| disruption_budget(setup).spec.unwrap().unhealthy_pod_eviction_policy;
    assert_eq!(policy(&setup), None, "Kubernetes 1.25 refuses it");
    assert!(policy(&self::setup()).is_some());
    let old = validating(&operator::address("ns"), &Source::Own, MatchConditions::Unsupported);
    for webhook in old.webhooks.unwrap() {
        assert_eq!(webhook.match_conditions, None);
        assert_eq!(webhook.rules.unwrap()[0].operations, Some(vec!["CREATE".to_owned()]));
    }
}

#[test]
fn all_classes_are_in_the_condition_that_picks_pods() {
    let mut setup = setup();
    setup.pods.classes.insert("kata-remote".to_owned());
    let webhook = mutating(&setup).webhooks.unwrap().remove(0);
    assert_eq!(
        webhook.match_conditions.unwrap()[0].expression,
        "has(object.spec.runtimeClassName) && object.spec.runtimeClassName in ['kata-remote', 'kata-remote-cc']"
    );
}

#[test]
fn versions_are_read_as_distributions_write_them() {
    for (major, minor, expected) in [
        ("1", "27", MatchConditions::Unsupported),
        ("1", "27+", MatchConditions::Unsupported),
        ("1", "28", MatchConditions::Supported),
        ("1", "36+", MatchConditions::Supported),
        ("2", "0", MatchConditions::Supported),
        ("", "", MatchConditions::Supported),
    ] {
        assert_eq!(MatchConditions::of(major, minor), expected, "{major}.{minor}");
    }
}

#[test]
fn who_makes_the_certificate_is_asked_where_it_looks() {
    let at = |source: Source| {
        let setup = Setup { source, ..setup() };
        (service(&setup).metadata.annotations, mutating(&setup).metadata.annotations)
    };
    assert_eq!(at(Source::Own), (None, None));
    let (service, configuration) = at(Source::ServiceCa);
    let service = service.unwrap();
    assert_eq!(service["service.beta.openshift.io/serving-cert-secret-name"], "peer-pods-webhook-svc-secret");
    assert_eq!(configuration.unwrap()["service.beta.openshift.io/inject-cabundle"], "true");
    let (service, configuration) = at(Source::CertManager("ns/cert".to_owned()));
    assert_eq!(service, None);
    assert_eq!(configuration.unwrap()["cert-manager.io/inject-ca-from"], "ns/cert");
}

#[test]
fn an_instance_type_is_handed_on_only_when_there_is_one() {
    let variables = |setup: &Setup| {
        let container = deployment(setup).spec.unwrap().template.spec.unwrap().containers.remove(0);
        container.env.unwrap().into_iter().map(|one| one.name).collect::<Vec<_>>()
    };
    assert!(!variables(&setup()).contains(&"POD_VM_INSTANCE_TYPE".to_owned()));
    let mut setup = setup();
    setup.pods.instance_type = Some("t3.small".to_owned());
    assert!(variables(&setup).contains(&"POD_VM_INSTANCE_TYPE".to_owned()));
}

#[test]
fn the_pods_are_told_when_somebody_else_makes_their_certificate() {
    let told = |source: Source| {
        let setup = Setup { source, ..setup() };
        let container = deployment(&setup).spec.unwrap().template.spec.unwrap().containers.remove(0);
        let mut variables = container.env.unwrap().into_iter();
        variables.find(|one| one.name == "PEERPODS_WEBHOOK_CERTIFICATE").and_then(|one| one.value)
    };
    assert_eq!(told(Source::Own), None);
    assert_eq!(told(Source::ServiceCa).as_deref(), Some("service-ca"));
}

#[test]
fn upstreams_configuration_is_told_from_that_of_any_other_project() {
    let of = |name: &str, webhooks: &[&str]| MutatingWebhookConfiguration {
        metadata: named(name, None),
        webhooks: Some(
            webhooks
                .iter()
                .map(|name| MutatingWebhook { name: (*name).to_owned(), ..Default::default() })
                .collect(),
        ),
    };
    assert!(is_upstreams(&of("mutating-webhook-configuration", &["mwebhook.peerpods.io"])));
    assert!(!is_upstreams(&of("mutating-webhook-configuration", &["mthing.kb.io"])));
    assert!(!is_upstreams(&of("mutating-webhook-configuration", &["mwebhook.peerpods.io", "mthing.kb.io"])));
    assert!(!is_upstreams(&of("mutating-webhook-configuration", &[])));
    assert!(!is_upstreams(&of("peerpods-webhook", &["mwebhook.peerpods.io"])));
}
