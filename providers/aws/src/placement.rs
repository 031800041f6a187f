//! Where a VM is asked for next: every type in every subnet and market, in order, without what had no capacity a moment ago. Pure.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Market;

/// For how long a place that had no capacity is passed by. Capacity comes back within minutes, as other people's machines end.
const PASSED_BY: Duration = Duration::from_secs(120);

/// One thing to ask EC2 for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Placement {
    /// `None` leaves it to the launch template.
    pub(crate) machine_type: Option<String>,
    /// `None` leaves it to the launch template.
    pub(crate) subnet: Option<String>,
    pub(crate) market: Market,
}

impl std::fmt::Display for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unnamed = "the launch template's";
        let market = match self.market {
            Market::OnDemand => "",
            Market::Spot => " (spot)",
        };
        let machine = self.machine_type.as_deref().unwrap_or(unnamed);
        write!(f, "{machine} in {}{market}", self.subnet.as_deref().unwrap_or(unnamed))
    }
}

/// Every placement in the order of preference: a type is tried in all subnets before the next, dearer one, and a whole market before
/// the next.
pub(crate) fn all(markets: &[(Market, Vec<String>)], subnets: &[String]) -> Vec<Placement> {
    let optional = |names: &[String]| -> Vec<Option<String>> {
        if names.is_empty() { vec![None] } else { names.iter().cloned().map(Some).collect() }
    };
    let mut all = Vec::new();
    for (market, types) in markets {
        for machine_type in optional(types) {
            for subnet in optional(subnets) {
                all.push(Placement { machine_type: machine_type.clone(), subnet, market: *market });
            }
        }
    }
    all
}

/// What had no capacity, and since when.
#[derive(Debug, Default)]
pub(crate) struct Unavailable(HashMap<Placement, Instant>);

impl Unavailable {
    /// Notes a refusal.
    pub(crate) fn note(&mut self, placement: Placement, now: Instant) {
        self.0.retain(|_, since| now.saturating_duration_since(*since) < PASSED_BY);
        self.0.insert(placement, now);
    }

    /// Notes that there was capacity after all.
    pub(crate) fn clear(&mut self, placement: &Placement) {
        self.0.remove(placement);
    }

    /// What to try of `all`, in order. Where everything had no capacity, the one refused longest ago: somebody has to find out.
    pub(crate) fn candidates(&self, all: Vec<Placement>, now: Instant) -> Vec<Placement> {
        let refused = |placement: &Placement| {
            let since = self.0.get(placement).copied();
            since.filter(|since| now.saturating_duration_since(*since) < PASSED_BY)
        };
        let open: Vec<Placement> =
            all.iter().filter(|placement| refused(placement).is_none()).cloned().collect();
        if !open.is_empty() {
            return open;
        }
        all.into_iter().min_by_key(|placement| refused(placement)).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn shown(list: &[Placement]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_type_is_tried_in_all_subnets_and_a_market_whole() {
        let types = names(&["small", "large"]);
        // Prices differ between markets, and so may the order.
        let markets = [(Market::Spot, types.clone()), (Market::OnDemand, types.into_iter().rev().collect())];
        let all = all(&markets, &names(&["a", "b"]));
        assert_eq!(
            shown(&all)[..4],
            ["small in a (spot)", "small in b (spot)", "large in a (spot)", "large in b (spot)"]
        );
        assert_eq!(shown(&all)[4..], ["large in a", "large in b", "small in a", "small in b"]);
    }

    #[test]
    fn what_is_not_named_is_left_to_the_template() {
        let all = all(&[(Market::OnDemand, Vec::new())], &[]);
        assert_eq!(all, [Placement { machine_type: None, subnet: None, market: Market::OnDemand }]);
    }

    #[test]
    fn a_place_without_capacity_is_passed_by_for_two_minutes() {
        let places = all(&[(Market::OnDemand, names(&["t"]))], &names(&["a", "b"]));
        let (now, mut unavailable) = (Instant::now(), Unavailable::default());
        unavailable.note(places[0].clone(), now);
        let at = |after| unavailable.candidates(places.clone(), now + Duration::from_secs(after));
        assert_eq!(shown(&at(119)), ["t in b"]);
        assert_eq!(shown(&at(121)), ["t in a", "t in b"]);
    }

    #[test]
    fn where_nothing_has_capacity_the_place_refused_longest_ago_is_tried() {
        let places = all(&[(Market::OnDemand, names(&["t"]))], &names(&["a", "b"]));
        let (now, mut unavailable) = (Instant::now(), Unavailable::default());
        unavailable.note(places[1].clone(), now);
        unavailable.note(places[0].clone(), now + Duration::from_secs(1));
        let later = now + Duration::from_secs(2);
        assert_eq!(shown(&unavailable.candidates(places.clone(), later)), ["t in b"]);
        unavailable.clear(&places[0]);
        assert_eq!(shown(&unavailable.candidates(places, later)), ["t in a"]);
    }
}
