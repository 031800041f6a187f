use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peerpods_crds::{PeerPodConfig, PeerPodConfigSpec, WORD_FALSE, WORD_TRUE};

use super::super::world::{Keys, Service, Stuck};
use super::*;

fn node(name: &str, label: &str, advertised: Option<&str>) -> Node {
    let labels = [(label.to_owned(), String::new())].into();
    Node { name: name.to_owned(), labels, advertised: advertised.map(str::to_owned) }
}

fn world(limit: &str) -> World {
    let node_selector = [(names::ROLE_LABEL.to_owned(), String::new())].into();
    let spec = PeerPodConfigSpec { limit: limit.to_owned(), node_selector, ..PeerPodConfigSpec::default() };
    let keys = |list: &[(&str, &str)]| {
        Some(Keys(list.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()))
    };
    World {
        config: PeerPodConfig::new("peerpodconfig-openshift", spec),
        nodes: vec![
            node("a", names::ROLE_LABEL, None),
            node("b", names::ROLE_LABEL, Some("10")),
            node("c", names::WORKER_LABEL, Some("10")),
            node("d", names::WORKER_LABEL, None),
        ],
        secret: keys(&[("AWS_ACCESS_KEY_ID", "x")]),
        config_map: keys(&[("CLOUD_PROVIDER", "aws"), ("PODVM_AMI_ID", "ami-1")]),
        service: Service { wanted: 2, ready: 2, stuck: Vec::new() },
        ..World::default()
    }
}

fn plan(world: &World) -> Plan {
    decide(world, &Settings::default(), Timestamp::from_second(1_700_000_000).unwrap())
}

#[test]
fn b10_every_selected_node_has_the_whole_limit_and_no_other_any() {
    let plan = plan(&world("10"));
    let change = |node: &str, limit| Capacity { node: node.to_owned(), limit };
    assert_eq!(plan.capacity, [change("a", Some(10)), change("c", None)]);
    assert_eq!(plan.status.advertised_nodes_count, 1);
    assert!(plan.finalizer == Finalizer::There && plan.apply.len() == 1);
}

#[test]
fn a_limit_that_is_no_number_is_told_and_changes_nothing() {
    for bad in ["", "-1", "ten", "1.5", "99999999999"] {
        let plan = plan(&world(bad));
        assert!(plan.capacity.is_empty() && plan.apply.is_empty(), "{bad}");
        let condition = &plan.status.conditions[0];
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), (WORD_FALSE, "InvalidLimit"));
        assert!(condition.message.contains("spec.limit"), "{}", condition.message);
    }
}

/// A pod of a template that names a missing Secret cannot start, and one that is rolled out by a Secret's absence would be such.
#[test]
fn with_a_fault_in_its_configuration_the_service_does_not_start_and_stays_as_it_is() {
    let mut without = world("10");
    without.secret = None;
    for service in [Service::default(), without.service.clone()] {
        without.service = service;
        let kept = plan(&without);
        assert_eq!((kept.apply.len(), kept.status.conditions[0].reason.as_str()), (0, "MissingSecret"));
        assert!(kept.again.is_some() && !kept.capacity.is_empty());
    }
}

#[test]
fn a_limit_is_there_in_every_form_that_the_api_server_gives_it() {
    for (limit, advertised, there) in
        [("1000", "1k", true), ("1000", "1000", true), ("0", "0", true), ("1000", "1001", false)]
    {
        let mut world = world(limit);
        world.nodes = vec![node("b", names::ROLE_LABEL, Some(advertised))];
        assert_eq!(plan(&world).capacity.is_empty(), there, "{limit} {advertised}");
    }
}

#[test]
fn one_beside_an_older_changes_nothing_and_can_go_at_any_time() {
    let mut second = world("10");
    second.older = vec!["first".to_owned(), "other".to_owned()];
    let standing_by = plan(&second);
    assert!(standing_by.capacity.is_empty() && standing_by.apply.is_empty());
    assert!(standing_by.finalizer == Finalizer::Gone && standing_by.again.is_some());
    let condition = &standing_by.status.conditions[0];
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), (WORD_FALSE, "AnotherPeerPodConfig"));
    assert!(condition.message.contains("first"), "{}", condition.message);
    second.config.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    second.config.metadata.finalizers = Some(vec![PEERPODCONFIG_FINALIZER.to_owned()]);
    let going = plan(&second);
    assert!(going.capacity.is_empty() && going.finalizer == Finalizer::Gone, "of an older operator's");
}

#[test]
fn why_the_service_fails_is_told_and_bounded() {
    let mut failing = world("10");
    let why = format!("provider aws is not usable: {}", "x".repeat(5000));
    failing.service = Service { wanted: 2, ready: 1, stuck: vec![Stuck { node: "a".to_owned(), why }] };
    let status = plan(&failing).status;
    let condition = &status.conditions[0];
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), (WORD_FALSE, "ServiceFailing"));
    assert!(
        condition
            .message
            .starts_with("the service fails on 1 of 2 nodes, as on a: provider aws is not usable")
    );
    assert_eq!(condition.message.chars().count(), 1000);
    failing.service.ready = 2;
    assert_eq!(plan(&failing).status.conditions[0].reason, "Ready");
}

#[test]
fn a_step_that_failed_is_told_and_nothing_is_claimed() {
    let good = World { nodes: vec![node("b", names::ROLE_LABEL, Some("10"))], ..world("10") };
    let planned = plan(&good).status;
    assert!(planned.setup_completed);
    let now = Timestamp::from_second(1_700_000_000).unwrap();
    let told = status::failed(&planned, &planned, "cannot apply DaemonSet a/b".to_owned(), now);
    let condition = &told.conditions[0];
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), (WORD_FALSE, "Failed"));
    assert_eq!(condition.message, "cannot apply DaemonSet a/b");
    assert!(!told.setup_completed);
}

#[test]
fn ready_is_when_all_nodes_advertise_and_all_services_are_ready() {
    let mut good = world("10");
    good.nodes = vec![node("b", names::ROLE_LABEL, Some("10"))];
    let first = plan(&good);
    assert!(first.status.setup_completed && first.capacity.is_empty());
    assert_eq!(first.status.conditions[0].status, WORD_TRUE);
    good.service.ready = 1;
    let starting = plan(&good);
    assert!(!starting.status.setup_completed);
    assert_eq!(starting.status.conditions[0].reason, "ServiceStarting");
    good.config.status = Some(starting.status.clone());
    let later = decide(&good, &Settings::default(), Timestamp::from_second(1_800_000_000).unwrap());
    assert_eq!(later.status, starting.status, "the same says the same, with its time");
}

#[test]
fn b12_what_is_wrong_with_the_provider_stays_told() {
    let mut wrong = world("10");
    wrong.config_map = Some(Keys([("CLOUD_PROVIDER".to_owned(), b"gcp".to_vec())].into()));
    for _ in 0..3 {
        let status = plan(&wrong).status;
        let condition = &status.conditions[0];
        assert_eq!(condition.status, WORD_FALSE);
        assert!(condition.message.contains("\"gcp\""), "{}", condition.message);
        wrong.config.status = Some(status);
    }
}

#[test]
fn at_its_end_nodes_advertise_nothing() {
    let mut gone = world("10");
    gone.config.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    gone.config.metadata.finalizers = Some(vec![PEERPODCONFIG_FINALIZER.to_owned()]);
    let plan = plan(&gone);
    let gone = |node: &str| Capacity { node: node.to_owned(), limit: None };
    assert_eq!(plan.capacity, [gone("b"), gone("c")], "also where the label went first");
    assert!(plan.finalizer == Finalizer::Gone && plan.apply.is_empty());
}

#[test]
fn without_a_selector_workers_are_meant() {
    let mut plain = world("3");
    plain.config.spec.node_selector.clear();
    let plan = plan(&plain);
    let limits: Vec<_> = plan.capacity.iter().map(|one| (one.node.as_str(), one.limit)).collect();
    assert_eq!(limits, [("b", None), ("c", Some(3)), ("d", Some(3))]);
}
