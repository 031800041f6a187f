use aws_sdk_ec2::types::builders::IpPermissionBuilder;
use aws_sdk_ec2::types::{IpRange, Ipv6Range, PrefixListId};

use super::super::Protocol;
use super::*;

const TUNNEL: Port = Port { protocol: Protocol::Udp, number: 9000 };

fn rule(protocol: &str, from: i32, to: i32) -> IpPermissionBuilder {
    IpPermission::builder().ip_protocol(protocol).from_port(from).to_port(to)
}

fn pair(group: &str, text: &str) -> UserIdGroupPair {
    UserIdGroupPair::builder().group_id(group).description(text).build()
}

fn group(rules: impl IntoIterator<Item = IpPermissionBuilder>) -> SecurityGroup {
    let rules = rules.into_iter().map(IpPermissionBuilder::build).collect();
    SecurityGroup::builder().group_id("sg-vms").set_ip_permissions(Some(rules)).build()
}

fn tunnel() -> IpPermissionBuilder {
    rule("udp", 9000, 9000)
}

fn of(told: Told, groups: &[&str]) -> Sources {
    Sources { groups: groups.iter().map(|group| (*group).to_owned()).collect(), told }
}

fn stands(group: &SecurityGroup, sources: &Sources, errand: Errand) -> Vec<(String, Standing)> {
    let rules = after(std::slice::from_ref(group), &[TUNNEL], sources, errand);
    rules.into_iter().map(|rule| (rule.source, rule.standing)).collect()
}

#[test]
fn a_port_is_open_by_its_own_rule_a_wider_one_or_everybodys() {
    let everybody = IpRange::builder().cidr_ip("0.0.0.0/0").build();
    for (rule, expected) in [
        (tunnel().user_id_group_pairs(pair("sg-1", DESCRIPTION)), (true, false)),
        (tunnel().user_id_group_pairs(pair("sg-1", "the admin's")), (false, true)),
        (rule("udp", 1, 65535).user_id_group_pairs(pair("sg-1", DESCRIPTION)), (false, true)),
        (rule("-1", -1, -1).user_id_group_pairs(pair("sg-1", "")), (false, true)),
        (tunnel().ip_ranges(everybody), (false, true)),
        // The guide's own mistake: the tunnel is UDP.
        (rule("tcp", 9000, 9000).user_id_group_pairs(pair("sg-1", DESCRIPTION)), (false, false)),
        (rule("udp", 9001, 9001).user_id_group_pairs(pair("sg-1", DESCRIPTION)), (false, false)),
        (tunnel().user_id_group_pairs(pair("sg-2", DESCRIPTION)), (false, false)),
    ] {
        let (ours, others) = expected;
        let group = group([rule]);
        assert_eq!(found(&group, TUNNEL, "sg-1"), Found { ours, others, perhaps: Vec::new() }, "{group:?}");
    }
}

#[test]
fn addresses_and_prefix_lists_are_neither_open_nor_closed() {
    let sources = of(Told::Given, &["sg-1"]);
    for (rule, named) in [
        (tunnel().ip_ranges(IpRange::builder().cidr_ip("10.0.0.0/8").build()), "10.0.0.0/8"),
        (tunnel().ipv6_ranges(Ipv6Range::builder().cidr_ipv6("::/0").build()), "::/0"),
        (tunnel().prefix_list_ids(PrefixListId::builder().prefix_list_id("pl-1").build()), "pl-1"),
    ] {
        let group = group([rule]);
        let told = |standing| vec![("sg-1".to_owned(), standing)];
        assert_eq!(stands(&group, &sources, Errand::Check), told(Standing::Unknown(named.to_owned())));
        assert_eq!(stands(&group, &sources, Errand::Open), told(Standing::Opened));
        assert_eq!(stands(&group, &sources, Errand::Close), told(Standing::Kept));
    }
}

#[test]
fn a_plan_changes_nothing_and_others_rules_stay() {
    let found = |ours, others| Found { ours, others, perhaps: Vec::new() };
    for (found, errand, standing) in [
        (found(false, false), Errand::Check, Standing::Missing),
        (found(false, false), Errand::PlanOpen, Standing::WouldOpen),
        (found(false, false), Errand::Open, Standing::Opened),
        (found(false, false), Errand::Close, Standing::Missing),
        (found(true, false), Errand::Open, Standing::Open),
        (found(true, false), Errand::PlanClose, Standing::WouldClose),
        // Whatever else lets the source in, what we opened is closed.
        (found(true, true), Errand::Close, Standing::Closed),
        (found(false, true), Errand::Close, Standing::Kept),
        (found(false, true), Errand::PlanClose, Standing::Kept),
    ] {
        assert_eq!(decide(found, errand), standing);
    }
}

#[test]
fn each_group_that_was_named_needs_a_rule_of_its_own() {
    let group = group([tunnel().user_id_group_pairs(pair("sg-2", "x"))]);
    for told in [Told::Given, Told::Configured] {
        assert_eq!(
            stands(&group, &of(told, &["sg-1", "sg-2"]), Errand::Open),
            [("sg-1".to_owned(), Standing::Opened), ("sg-2".to_owned(), Standing::Open)]
        );
    }
}

#[test]
fn a_worker_needs_one_of_its_groups_to_be_let_in() {
    let own = of(Told::Metadata, &["sg-1", "sg-2"]);
    let second = group([tunnel().user_id_group_pairs(pair("sg-2", "x"))]);
    assert_eq!(stands(&second, &own, Errand::Open), [("sg-2".to_owned(), Standing::Open)]);
    assert_eq!(stands(&group([]), &own, Errand::Open), [("sg-1".to_owned(), Standing::Opened)]);
}

#[test]
fn whatever_was_opened_is_closed_unless_somebody_says_which() {
    let pairs = [pair("sg-1", DESCRIPTION), pair("sg-2", DESCRIPTION), pair("sg-3", "the admin's")];
    let group = group([tunnel().set_user_id_group_pairs(Some(pairs.to_vec()))]);
    let closed = |source: &str| (source.to_owned(), Standing::Closed);
    for told in [Told::Assumed, Told::Metadata, Told::Configured] {
        assert_eq!(
            stands(&group, &of(told, &["sg-vms"]), Errand::Close),
            [closed("sg-1"), closed("sg-2")],
            "{told:?}"
        );
    }
    assert_eq!(stands(&group, &of(Told::Given, &["sg-2"]), Errand::Close), [closed("sg-2")]);
    assert_eq!(
        stands(&group, &of(Told::Given, &["sg-3"]), Errand::Close),
        [("sg-3".to_owned(), Standing::Kept)]
    );
}

#[test]
fn where_nobody_knows_the_workers_groups_those_let_in_before_are_looked_at() {
    let opened = group([tunnel().user_id_group_pairs(pair("sg-9", DESCRIPTION))]);
    let assumed = of(Told::Assumed, &["sg-vms"]);
    assert_eq!(stands(&opened, &assumed, Errand::Check), [("sg-9".to_owned(), Standing::Open)]);
    assert_eq!(stands(&opened, &assumed, Errand::PlanOpen), [("sg-vms".to_owned(), Standing::WouldOpen)]);
    assert_eq!(stands(&group([]), &assumed, Errand::Check), [("sg-vms".to_owned(), Standing::Missing)]);
}
