//! Histories of tunnels, and tables that others changed.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::guard::table::{CHAINS, RuleText, contents, peers, rules};

fn peer(vni: u32, address: &str) -> Peer {
    Peer { port: 9000, vni, address: address.parse().unwrap(), netns: Some(format!("/run/netns/p{vni}")) }
}

fn found(rule: RuleText) -> Rule {
    Rule { chain: rule.chain.to_owned(), comment: rule.comment }
}

fn nothing() -> State {
    State { generation: 1, rules: Vec::new(), sets: vec![None; 4] }
}

/// As the kernel lists it: one chain after the other, in the order in which they were made.
fn holding(peers: &[Peer]) -> State {
    let mut rules: Vec<Rule> = rules(Tracking::Bypassed).into_iter().map(found).collect();
    rules.sort_by_key(|rule| CHAINS.iter().position(|chain| chain.name == rule.chain));
    State { generation: 1, rules, sets: contents(peers).map(Some).into() }
}

fn none_gone(_: &str) -> bool {
    false
}

fn withdraw(vni: u32) -> Change {
    Change::Withdraw { vni, port: 9000 }
}

#[test]
fn tunnels_are_read_back_from_the_sets_as_they_were_written() {
    let mut all = vec![peer(1, "10.0.0.1"), peer(0xff_ffff, "fd00::1"), peer(555_000, "10.0.0.1")];
    all[0].netns = None;
    all.sort();
    assert_eq!(peers(&contents(&all).map(Some)), all);
}

#[test]
fn a_namespace_whose_path_does_not_fit_a_comment_is_not_kept_half() {
    let long = Peer { netns: Some("/run/netns/".to_owned() + &"x".repeat(200)), ..peer(1, "10.0.0.1") };
    assert_eq!(peers(&contents(&[long]).map(Some))[0].netns, None);
}

#[test]
fn a_key_of_the_other_familys_length_is_no_tunnel() {
    let [one, two] = [peer(1, "10.0.0.1"), peer(2, "fd00::2")];
    let [short, long, ..] = contents(&[one.clone(), two.clone()]);
    let mut state = holding(&[one.clone(), two.clone()]);
    state.sets.swap(0, 1);
    assert_eq!(peers(&state.sets), []);
    state.sets[0] = Some(short.clone());
    state.sets[1] = Some([short, long].concat());
    assert_eq!(peers(&state.sets), [one.clone(), two.clone()]);
    assert_eq!(plan(&state, &Change::Collect, none_gone), Plan::Build(vec![one, two]));
}

#[test]
fn the_first_tunnel_builds_the_table_and_the_last_removes_it() {
    let one = peer(1, "10.0.0.1");
    assert_eq!(
        plan(&nothing(), &Change::Admit(vec![one.clone()]), none_gone),
        Plan::Build(vec![one.clone()])
    );
    let removed = Plan::Change(vec![Message::remove_table("peerpods")]);
    assert_eq!(plan(&holding(&[one]), &withdraw(1), none_gone), removed);
    assert_eq!(plan(&nothing(), &withdraw(1), none_gone), Plan::Nothing);
    assert_eq!(plan(&holding(&[]), &Change::Collect, none_gone), removed, "left by others' doing");
}

#[test]
fn what_is_there_is_not_done_again() {
    let (one, two) = (peer(1, "10.0.0.1"), peer(2, "fd00::2"));
    let state = holding(&[one.clone(), two.clone()]);
    for change in [
        Change::Admit(vec![one.clone()]),
        Change::Admit(vec![two.clone(), one]),
        withdraw(9),
        Change::Collect,
    ] {
        assert_eq!(plan(&state, &change, none_gone), Plan::Nothing, "{change:?}");
    }
}

#[test]
fn a_table_that_was_tampered_with_is_built_anew_with_all_tunnels() {
    let (one, two) = (peer(1, "10.0.0.1"), peer(2, "10.0.0.2"));
    let whole = holding(&[one.clone(), two.clone()]);
    let without_a_rule = State { rules: whole.rules[1..].to_vec(), ..whole.clone() };
    let mut without_a_port = whole.clone();
    without_a_port.sets[3] = Some(Vec::new());
    let mut of_another_version = whole.clone();
    of_another_version.rules[0].comment = "tunnels' peers [0]".to_owned();
    let mut in_another_order = whole;
    let inputs = in_another_order.rules.iter().position(|rule| rule.chain == "input").unwrap();
    in_another_order.rules.swap(inputs, inputs + 2);
    for state in [without_a_rule, without_a_port, of_another_version, in_another_order] {
        let built = plan(&state, &Change::Admit(vec![one.clone()]), none_gone);
        assert_eq!(built, Plan::Build(vec![one.clone(), two.clone()]));
    }
}

#[test]
fn a_tunnel_whose_peer_moved_has_only_the_new_one() {
    let state = holding(&[peer(1, "10.0.0.1"), peer(2, "10.0.0.2")]);
    let Plan::Change(messages) = plan(&state, &Change::Admit(vec![peer(1, "fd00::9")]), none_gone) else {
        panic!()
    };
    let element = |p: &Peer| contents(std::slice::from_ref(p));
    let old = element(&peer(1, "10.0.0.1"));
    let new = element(&peer(1, "fd00::9"));
    let mut expected = Message::remove_elements("peerpods", "peers4", &old[0]);
    expected.extend(Message::add_elements("peerpods", "peers6", &new[1]));
    assert_eq!(messages, expected);
}

#[test]
fn tunnels_of_namespaces_that_are_gone_go_with_any_change() {
    let state = holding(&[peer(1, "10.0.0.1"), peer(2, "10.0.0.2")]);
    let gone = |path: &str| path == "/run/netns/p1";
    let Plan::Change(messages) = plan(&state, &Change::Collect, gone) else { panic!() };
    let old = contents(&[peer(1, "10.0.0.1")]);
    let mut expected = Message::remove_elements("peerpods", "peers4", &old[0]);
    expected.extend(Message::remove_elements("peerpods", "tunnels", &old[2]));
    assert_eq!(messages, expected, "and the port, which another tunnel has, stays");
    let all_gone = plan(&state, &withdraw(9), |_| true);
    assert_eq!(all_gone, Plan::Change(vec![Message::remove_table("peerpods")]));
}

#[test]
fn all_tunnels_come_back_at_once_when_the_table_is_gone_or_lost_some() {
    let all = vec![peer(1, "10.0.0.1"), peer(2, "fd00::2"), peer(3, "10.0.0.3")];
    let keep = Change::Admit(all.clone());
    assert_eq!(plan(&nothing(), &keep, none_gone), Plan::Build(all.clone()));
    let Plan::Change(messages) = plan(&holding(&all[..2]), &keep, none_gone) else { panic!() };
    assert_eq!(messages, encode(&differences(&all[..2], &all)));
    assert_eq!(plan(&nothing(), &Change::Admit(Vec::new()), none_gone), Plan::Nothing);
}

#[derive(Debug, Clone)]
enum Act {
    Admit(u32, u8),
    Withdraw(u32),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![(0_u32..4, 1_u8..4).prop_map(|(v, a)| Act::Admit(v, a)), (0_u32..4).prop_map(Act::Withdraw)]
}

/// Applies the differences as the kernel would: what is removed must be there, what is added must not.
fn applied(before: &[Peer], after: &[Peer]) -> [Vec<Element>; 4] {
    let mut sets = contents(before);
    for (set, difference) in sets.iter_mut().zip(differences(before, after)) {
        for gone in &difference.removed {
            let at = set.iter().position(|element| element.key == gone.key);
            assert_eq!(set.remove(at.expect("it is not there")), *gone);
        }
        for new in difference.added {
            assert!(set.iter().all(|element| element.key != new.key), "{new:?} is there");
            set.push(new);
        }
        set.sort();
    }
    sets
}

proptest! {
    /// The differences are exact: what they remove is there, what they add is not, and with them the sets hold what they should.
    #[test]
    fn any_history_ends_with_the_tunnels_that_were_not_withdrawn(acts in proptest::collection::vec(act(), 0..20)) {
        let mut model: BTreeMap<u32, Peer> = BTreeMap::new();
        for act in acts {
            let before: Vec<Peer> = model.values().cloned().collect();
            let change = match act {
                Act::Admit(vni, last) => {
                    let peer = peer(vni, &format!("10.0.0.{last}"));
                    model.insert(vni, peer.clone());
                    Change::Admit(vec![peer])
                }
                Act::Withdraw(vni) => {
                    model.remove(&vni);
                    withdraw(vni)
                }
            };
            let after: Vec<Peer> = model.values().cloned().collect();
            prop_assert_eq!(applied(&before, &after), contents(&after));
            let state = if before.is_empty() { nothing() } else { holding(&before) };
            let expected = match (before.is_empty(), after.is_empty()) {
                (true, true) => Plan::Nothing,
                (true, false) => Plan::Build(after),
                (false, true) => Plan::Change(vec![Message::remove_table("peerpods")]),
                (false, false) if before == after => Plan::Nothing,
                (false, false) => Plan::Change(encode(&differences(&before, &after))),
            };
            prop_assert_eq!(plan(&state, &change, none_gone), expected);
        }
    }
}
