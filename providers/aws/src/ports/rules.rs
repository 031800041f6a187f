//! What a group's rules mean for a port, and how it stands after an errand. Pure.

use aws_sdk_ec2::types::{IpPermission, SecurityGroup, UserIdGroupPair};

use super::{Errand, Port, Rule, Sources, Standing, Told};

/// What a rule of ours is described as; only such rules are closed again.
pub(super) const DESCRIPTION: &str = "peerpods";
/// Everybody, as far as VMs' addresses are IPv4: the first one always is, where there is any.
const EVERYBODY: &str = "0.0.0.0/0";

/// By what a port is open to a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Found {
    /// By a rule for this port and source that `open` made.
    ours: bool,
    /// By another rule that certainly lets the source in.
    others: bool,
    /// By rules for addresses, or lists of them, which may be the source's.
    perhaps: Vec<String>,
}

/// Every port of every group, for every source it is about, as it stands after the errand.
pub(super) fn after(
    groups: &[SecurityGroup],
    ports: &[Port],
    sources: &Sources,
    errand: Errand,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for group in groups {
        for port in ports {
            let (told, concerned) = concerned(group, *port, sources, errand);
            for source in concerned {
                let standing = decide(found(group, *port, &source), errand);
                let group = group.group_id().unwrap_or_default().to_owned();
                rules.push(Rule { group, port: *port, source, told, standing });
            }
        }
    }
    rules
}

/// The sources an errand is about: those that were named; of a worker's own the one that is let in, or the first; to be closed, when
/// nobody named any, whatever rules of ours let in, and so it is when nothing better is known of what to look for.
fn concerned(group: &SecurityGroup, port: Port, sources: &Sources, errand: Errand) -> (Told, Vec<String>) {
    let told = sources.told;
    let closing = matches!(errand, Errand::PlanClose | Errand::Close);
    if (closing && told != Told::Given) || (errand == Errand::Check && told == Told::Assumed) {
        let ours = let_in_by_us(group, port);
        if !ours.is_empty() {
            return (Told::Opened, ours);
        }
    }
    if told != Told::Metadata {
        return (told, sources.groups.clone());
    }
    let is_in = |source: &&String| {
        let found = found(group, port, source);
        found.ours || found.others
    };
    let one = sources.groups.iter().find(is_in).or(sources.groups.first());
    (told, one.into_iter().cloned().collect())
}

fn covers(rule: &IpPermission, port: Port) -> bool {
    let number = i32::from(port.number);
    match rule.ip_protocol() {
        Some("-1") => true,
        Some(protocol) => {
            protocol == port.protocol.name()
                && rule.from_port().is_some_and(|from| from <= number)
                && rule.to_port().is_some_and(|to| to >= number)
        }
        None => false,
    }
}

/// Whether a rule is one that `open` would make: for this port alone, with our description.
fn is_ours(rule: &IpPermission, pair: &UserIdGroupPair, port: Port) -> bool {
    let number = Some(i32::from(port.number));
    rule.from_port() == number && rule.to_port() == number && pair.description() == Some(DESCRIPTION)
}

fn let_in_by_us(group: &SecurityGroup, port: Port) -> Vec<String> {
    let rules = group.ip_permissions().iter().filter(|rule| covers(rule, port));
    let pairs = rules
        .flat_map(|rule| rule.user_id_group_pairs().iter().filter(move |pair| is_ours(rule, pair, port)));
    pairs.filter_map(|pair| pair.group_id().map(str::to_owned)).collect()
}

fn found(group: &SecurityGroup, port: Port, source: &str) -> Found {
    let mut found = Found::default();
    for rule in group.ip_permissions().iter().filter(|rule| covers(rule, port)) {
        for pair in rule.user_id_group_pairs().iter().filter(|pair| pair.group_id() == Some(source)) {
            match is_ours(rule, pair, port) {
                true => found.ours = true,
                false => found.others = true,
            }
        }
        let four = rule.ip_ranges().iter().filter_map(|range| range.cidr_ip());
        let six = rule.ipv6_ranges().iter().filter_map(|range| range.cidr_ipv6());
        let lists = rule.prefix_list_ids().iter().filter_map(|list| list.prefix_list_id());
        for addresses in four.chain(six).chain(lists) {
            match addresses {
                EVERYBODY => found.others = true,
                _ => found.perhaps.push(addresses.to_owned()),
            }
        }
    }
    found
}

fn decide(found: Found, errand: Errand) -> Standing {
    let closing = matches!(errand, Errand::PlanClose | Errand::Close);
    match (errand, found.ours, found.others) {
        (Errand::PlanClose, true, _) => Standing::WouldClose,
        (Errand::Close, true, _) => Standing::Closed,
        (Errand::PlanClose | Errand::Close, false, true) => Standing::Kept,
        (_, true, _) | (_, _, true) => Standing::Open,
        // Ours makes certain what is not; it is no wider than what may be there already.
        (Errand::PlanOpen, ..) => Standing::WouldOpen,
        (Errand::Open, ..) => Standing::Opened,
        _ if found.perhaps.is_empty() => Standing::Missing,
        _ if closing => Standing::Kept,
        _ => Standing::Unknown(found.perhaps.join(", ")),
    }
}

#[cfg(test)]
mod tests;
