//! The sweep's decision, held to its rules.

use proptest::prelude::*;

use super::*;

const GRACE: Duration = Duration::from_secs(120);
const INTERVAL: Duration = Duration::from_secs(60);

fn rules() -> Rules {
    Rules { node: "here".into(), grace: GRACE }
}

fn vm(sandbox: &str, vm: &str, node: Option<&str>, owner: Owner) -> Observed {
    Observed { sandbox: sandbox.parse().unwrap(), vm: vm.into(), node: node.map(Into::into), owner }
}

fn orphan(sandbox: &str) -> Observed {
    vm(sandbox, &format!("vm-{sandbox}"), Some("here"), Owner::Nobody)
}

/// Runs passes, `INTERVAL` apart; answers what each had due.
fn passes(lists: &[Vec<Observed>]) -> Vec<Vec<String>> {
    let (mut memory, mut now, mut all) = (Memory::default(), Instant::now(), Vec::new());
    for list in lists {
        let pass = decide(list, &memory, now, &rules());
        all.push(pass.due.iter().map(ToString::to_string).collect());
        (memory, now) = (pass.memory, now + INTERVAL);
    }
    all
}

#[test]
fn what_a_vm_is_to_this_node() {
    let shim = || Owner::Shim("held".into());
    for (node, owner, is) in [
        (Some("here"), Owner::Nobody, Verdict::Orphan),
        (Some("there"), Owner::Nobody, Verdict::OtherNode("there".into())),
        (None, Owner::Nobody, Verdict::NoNode),
        (Some("here"), shim(), Verdict::HeldByShim("held".into())),
        (Some("there"), shim(), Verdict::HeldByShim("held".into())),
        (Some("here"), Owner::Sandbox(State::Stopping), Verdict::Live(State::Stopping)),
        (Some("there"), Owner::Sandbox(State::Running), Verdict::Live(State::Running)),
        (None, Owner::Sandbox(State::None), Verdict::Live(State::None)),
    ] {
        assert_eq!(verdict(&vm("a", "1", node, owner.clone()), &rules()), is, "{node:?} {owner:?}");
    }
}

#[test]
fn an_orphan_is_due_after_two_passes_and_the_grace() {
    let seen = vec![orphan("a")];
    let none: Vec<String> = Vec::new();
    // Seen at 0, 60 and 120 seconds.
    assert_eq!(
        passes(&[seen.clone(), seen.clone(), seen.clone()]),
        [none.clone(), none.clone(), vec!["a".into()]]
    );
    let now = Instant::now();
    let first = decide(&seen, &Memory::default(), now, &Rules { grace: Duration::ZERO, ..rules() });
    assert!(first.due.is_empty(), "no grace, and still two passes");
    let second = decide(&seen, &first.memory, now, &Rules { grace: Duration::ZERO, ..rules() });
    assert_eq!(second.due.len(), 1);
}

#[test]
fn whoever_was_away_in_between_begins_anew() {
    let (seen, empty) = (vec![orphan("a")], Vec::new());
    let owned = vec![vm("a", "vm-a", Some("here"), Owner::Sandbox(State::Running))];
    for break_ in [empty, owned] {
        let lists = [seen.clone(), seen.clone(), break_, seen.clone(), seen.clone(), seen.clone()];
        let due = passes(&lists);
        assert!(due[..5].iter().all(Vec::is_empty), "{due:?}");
        assert_eq!(due[5], ["a"]);
    }
    let another = vec![vm("a", "vm-later", Some("here"), Owner::Nobody)];
    let due = passes(&[seen.clone(), seen, another]);
    assert!(due.iter().all(Vec::is_empty), "a later VM of the same sandbox has not been seen twice: {due:?}");
}

#[test]
fn a_sandbox_is_spared_when_any_of_its_vms_is() {
    let other = vm("a", "vm-2", Some("there"), Owner::Nobody);
    let lists = vec![vec![orphan("a"), other, orphan("b")]; 4];
    assert_eq!(passes(&lists)[2], ["b"]);
    assert_eq!(passes(&lists)[3], ["b"]);
}

fn owner() -> impl Strategy<Value = Owner> {
    prop_oneof![
        8 => Just(Owner::Nobody),
        1 => Just(Owner::Shim("held".into())),
        1 => prop::sample::select(vec![State::None, State::Created, State::Running, State::Stopping])
            .prop_map(Owner::Sandbox),
    ]
}

fn observed() -> impl Strategy<Value = Observed> {
    let node = prop::sample::select(vec![Some("here"), Some("here"), Some("here"), Some("there"), None]);
    ("[a-c]", "[1-2]", node, owner()).prop_map(|(sandbox, id, node, owner)| vm(&sandbox, &id, node, owner))
}

proptest! {
    /// Whatever the passes before saw.
    #[test]
    fn only_orphans_are_ever_due(lists in prop::collection::vec(prop::collection::vec(observed(), 0..8), 1..8)) {
        let (mut memory, mut now) = (Memory::default(), Instant::now());
        for (number, list) in lists.iter().enumerate() {
            let pass = decide(list, &memory, now, &rules());
            for sandbox in &pass.due {
                let all = |lists: &[Observed]| {
                    let mut vms = lists.iter().filter(|vm| vm.sandbox == *sandbox).peekable();
                    vms.peek().is_some() && vms.all(|vm| verdict(vm, &rules()) == Verdict::Orphan)
                };
                prop_assert!(all(list), "{sandbox} is spared in {list:?}");
                prop_assert!(number >= 2, "two passes are 60 seconds, the grace is 120");
            }
            (memory, now) = (pass.memory, now + INTERVAL);
        }
    }

    /// Whatever else is in the lists, and however long the passes are apart.
    #[test]
    fn every_true_orphan_is_due_within_bounded_passes(
        lists in prop::collection::vec(prop::collection::vec(observed(), 0..6), 4),
        gaps in prop::collection::vec(60_u64..600, 4),
    ) {
        let (mut memory, mut now, mut found) = (Memory::default(), Instant::now(), false);
        for (list, gap) in lists.into_iter().zip(gaps) {
            let mut list = list;
            list.push(orphan("lost"));
            let pass = decide(&list, &memory, now, &rules());
            found |= pass.due.iter().any(|sandbox| sandbox.as_str() == "lost");
            (memory, now) = (pass.memory, now + Duration::from_secs(gap));
        }
        prop_assert!(found, "four passes at least a minute apart are enough");
    }
}
