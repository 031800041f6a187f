use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference, Time};
use peerpods_crds::PeerPodSpec;

use super::*;

const BORN: i64 = 1_000_000;

fn decide(world: &World, now: Timestamp) -> Plan {
    super::decide(world, &Pace::default(), now)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(BORN + second).unwrap()
}

fn a_world() -> World {
    let mut peer_pod = PeerPod::new(
        "web-resource-1",
        PeerPodSpec {
            cloud_provider: "aws".to_owned(),
            instance_id: "i-1".to_owned(),
            sandbox_id: Some("s1".to_owned()),
            cluster_id: Some("c".to_owned()),
            node_name: Some("n".to_owned()),
            location: None,
            sandbox_created: None,
        },
    );
    peer_pod.metadata.creation_timestamp = Some(Time(at(0)));
    peer_pod.metadata.finalizers = Some(vec![PEERPOD_FINALIZER.to_owned()]);
    World { peer_pod, node: Node::Ready, pod_is_there: false, siblings: Vec::new() }
}

fn deleted() -> World {
    let mut world = a_world();
    world.peer_pod.metadata.deletion_timestamp = Some(Time(at(100)));
    world
}

fn the_vm() -> Vm {
    Vm::Key(VmKey { cluster: "c".parse().unwrap(), sandbox: "s1".parse().unwrap() })
}

#[test]
fn a_pods_vm_is_left_alone_as_long_as_its_peerpod_is_there() {
    for node in [Node::Ready, Node::NotReady, Node::Gone] {
        let world = World { node, ..a_world() };
        assert_eq!(decide(&world, at(1_000_000)), at_rest(), "{node:?}");
    }
}

#[test]
fn a_peerpod_without_our_finalizer_gets_it() {
    let mut world = a_world();
    world.peer_pod.metadata.finalizers = Some(vec!["other".to_owned()]);
    assert_eq!(decide(&world, at(1)).step, Step::Guard);
}

#[test]
fn a_node_that_works_has_a_minute_and_one_that_does_not_has_none() {
    let waits = |left| Plan { step: Step::Wait, again: Some(Duration::from_secs(left)) };
    let collects = now_do(Step::Collect(the_vm()));
    for (node, now, expected) in [
        (Node::Ready, 100, waits(60)),
        (Node::Ready, 130, waits(30)),
        (Node::Ready, 160, collects.clone()),
        (Node::NotReady, 100, collects.clone()),
        (Node::Gone, 100, collects.clone()),
        // Clocks that differ.
        (Node::Ready, 90, waits(60)),
    ] {
        let world = World { node, ..deleted() };
        assert_eq!(decide(&world, at(now)), expected, "{node:?} at {now}");
    }
}

#[test]
fn a_peerpod_that_is_let_go_is_nobodys_business() {
    let mut world = deleted();
    world.peer_pod.metadata.finalizers = Some(vec!["other".to_owned()]);
    assert_eq!(decide(&world, at(1000)), at_rest());
}

#[test]
fn what_was_never_made_or_is_to_be_forgotten_is_not_asked_for() {
    let mut world = World { node: Node::Gone, ..deleted() };
    world.peer_pod.spec = PeerPodSpec::default();
    assert_eq!(decide(&world, at(100)).step, Step::Release(NoVm::NeverMade));
    world.peer_pod.spec.instance_id = "i-9".to_owned();
    assert_eq!(decide(&world, at(100)).step, Step::Collect(Vm::Id("i-9".to_owned())));
    world.peer_pod.metadata.annotations = Some([(FORGET.to_owned(), "true".to_owned())].into());
    assert_eq!(decide(&world, at(100)).step, Step::Release(NoVm::Forgotten));
}

#[test]
fn a_vm_is_known_by_its_sandbox_also_before_its_id_is() {
    let mut world = World { node: Node::Gone, ..deleted() };
    world.peer_pod.spec.instance_id = String::new();
    assert_eq!(decide(&world, at(100)).step, Step::Collect(the_vm()));
    world.peer_pod.spec.sandbox_id = Some("no/id".to_owned());
    world.peer_pod.spec.instance_id = "i-1".to_owned();
    assert_eq!(decide(&world, at(100)).step, Step::Collect(Vm::Id("i-1".to_owned())), "an id that is none");
}

fn sibling(sandbox: &str, second: i64) -> Sibling {
    Sibling {
        name: format!("web-{sandbox}"),
        uid: None,
        sandbox: Some(sandbox.to_owned()),
        age: Age { written: Some(at(second)), asked: None },
        is_going: false,
    }
}

/// The API server was away when the older sandbox was asked for, and its PeerPod was written after the newer one's.
#[test]
fn a_peerpod_that_was_written_late_does_not_make_the_pods_newer_vm_the_older_one() {
    let age = |written, asked| Age { written: Some(at(written)), asked: Some(at(asked)) };
    for (own, other, others_goes) in [
        (age(0, -5), age(-10, -15), true),
        // Within the same second.
        (age(0, -5), age(0, -15), true),
        // The other is newer and was written first; and the same with a clock that was set back.
        (age(0, -15), age(-10, -5), false),
        (age(0, -5), age(10, -15), false),
        (age(0, -5), Age { asked: None, ..age(-10, 0) }, true),
    ] {
        let mut world = World { siblings: vec![Sibling { age: other, ..sibling("s0", 0) }], ..a_world() };
        world.peer_pod.metadata.creation_timestamp = own.written.map(Time);
        world.peer_pod.spec.sandbox_created = own.asked.map(MicroTime);
        let retires = matches!(decide(&world, at(1000)).step, Step::Retire(_));
        assert_eq!(retires, others_goes, "{own:?} {other:?}");
        assert!(!own.is_before(&other) || !other.is_before(&own));
    }
}

#[test]
fn of_two_vms_of_a_pod_the_older_goes_when_the_newer_is_there_for_a_minute() {
    let old = || sibling("s0", -10);
    let going = Sibling { is_going: true, ..old() };
    for (siblings, now, expected) in [
        (vec![old()], 20, Plan { step: Step::Wait, again: Some(Duration::from_secs(40)) }),
        (vec![old()], 60, now_do(Step::Retire(vec![old()]))),
        (vec![sibling("s2", 65), old()], 60, now_do(Step::Retire(vec![old()]))),
        (vec![sibling("s2", 10)], 1000, at_rest()),
        (vec![sibling("s2", 0)], 1000, at_rest()),
        (vec![sibling("s1", -10)], 1000, at_rest()),
        (vec![going], 1000, at_rest()),
    ] {
        let world = World { siblings: siblings.clone(), ..a_world() };
        assert_eq!(decide(&world, at(now)), expected, "{siblings:?} at {now}");
    }
}

/// A static pod's, whose kubelet knows of no end: its namespace was deleted, or the Node was made anew.
#[test]
fn a_vm_that_its_node_owns_is_the_nodes_as_long_as_there_is_one() {
    for (node, keeps) in [(Node::Ready, true), (Node::NotReady, true), (Node::Gone, false)] {
        let mut world = World { node, ..deleted() };
        let owner = OwnerReference { kind: "Node".to_owned(), ..OwnerReference::default() };
        world.peer_pod.metadata.owner_references = Some(vec![owner]);
        assert_eq!(decide(&world, at(1_000_000)).step == Step::LeaveToItsNode, keeps, "{node:?}");
        assert_eq!(decide(&world, at(101)).step == Step::Wait, keeps, "its node may be at it");
    }
}

#[test]
fn a_peerpod_that_is_deleted_before_its_pod_keeps_its_vm_until_the_pods_end() {
    for (node, keeps) in [(Node::Ready, true), (Node::NotReady, true), (Node::Gone, false)] {
        let world = World { node, pod_is_there: true, ..deleted() };
        assert_eq!(decide(&world, at(1000)).step == Step::Wait, keeps, "{node:?}");
    }
}
