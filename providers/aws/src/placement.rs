//! Where a VM is asked for next: every type in every subnet and market, in order, without what had no capacity a moment ago. Pure.

use std::collections::HashMap;
use std::time::Duration;

use peerpods_provider::{ErrorKind, ProviderError};
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

/// What was refused, and when.
#[derive(Debug, Clone)]
struct Refusal {
    at: Instant,
    kind: ErrorKind,
    code: Option<String>,
}

/// What had no capacity a moment ago, whoever asked for it.
#[derive(Debug, Default)]
pub(crate) struct Unavailable(HashMap<Placement, Refusal>);

impl Unavailable {
    /// Notes a refusal.
    pub(crate) fn note(&mut self, placement: Placement, error: &ProviderError, now: Instant) {
        self.0.retain(|_, refusal| is_fresh(refusal, now));
        self.0.insert(placement, Refusal { at: now, kind: error.kind, code: error.code.clone() });
    }

    /// Notes that there was capacity after all.
    pub(crate) fn clear(&mut self, placement: &Placement) {
        self.0.remove(placement);
    }

    /// What is left to try of `all` for somebody who was refused `tried`, in order. Where everything was refused a moment ago, whoever
    /// tried nothing yet is given the one refused longest ago: somebody has to find out, and calls are scarce.
    pub(crate) fn candidates(&self, all: &[Placement], tried: &[Placement], now: Instant) -> Vec<Placement> {
        let open =
            |placement: &&Placement| self.fresh(placement, now).is_none() && !tried.contains(placement);
        let open: Vec<Placement> = all.iter().filter(open).cloned().collect();
        if !open.is_empty() || !tried.is_empty() {
            return open;
        }
        let longest_ago =
            all.iter().min_by_key(|placement| self.fresh(placement, now).map(|refusal| refusal.at));
        longest_ago.into_iter().cloned().collect()
    }

    /// What is known of `all`, for an error text.
    pub(crate) fn told(&self, all: &[Placement], now: Instant) -> String {
        let told = all.iter().filter_map(|placement| {
            let refusal = self.fresh(placement, now)?;
            let code = refusal.code.as_deref().unwrap_or("refused");
            let when = match now.saturating_duration_since(refusal.at).as_secs() {
                0 => "now".to_owned(),
                seconds => format!("{seconds} s ago"),
            };
            Some(format!("{placement}: {code}, {when}"))
        });
        told.collect::<Vec<_>>().join("; ")
    }

    /// Whether capacity is what lacked for at least one of `all`: that comes back by itself.
    pub(crate) fn lacked_capacity(&self, all: &[Placement], now: Instant) -> bool {
        let mut refusals = all.iter().filter_map(|placement| self.fresh(placement, now));
        refusals.any(|refusal| refusal.kind == ErrorKind::Capacity)
    }

    fn fresh(&self, placement: &Placement, now: Instant) -> Option<&Refusal> {
        self.0.get(placement).filter(|refusal| is_fresh(refusal, now))
    }
}

fn is_fresh(refusal: &Refusal, now: Instant) -> bool {
    now.saturating_duration_since(refusal.at) < PASSED_BY
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

    fn refusal(kind: ErrorKind, code: &str) -> ProviderError {
        ProviderError::new(kind, "create", "no").code(code)
    }

    fn none() -> ProviderError {
        refusal(ErrorKind::Capacity, "InsufficientInstanceCapacity")
    }

    #[test]
    fn a_place_without_capacity_is_passed_by_for_two_minutes() {
        let places = all(&[(Market::OnDemand, names(&["t"]))], &names(&["a", "b"]));
        let (now, mut unavailable) = (Instant::now(), Unavailable::default());
        unavailable.note(places[0].clone(), &none(), now);
        let at = |after| unavailable.candidates(&places, &[], now + Duration::from_secs(after));
        assert_eq!(shown(&at(119)), ["t in b"]);
        assert_eq!(shown(&at(121)), ["t in a", "t in b"]);
    }

    #[test]
    fn where_nothing_has_capacity_the_place_refused_longest_ago_is_tried_and_no_other() {
        let places = all(&[(Market::OnDemand, names(&["t"]))], &names(&["a", "b"]));
        let (now, mut unavailable) = (Instant::now(), Unavailable::default());
        unavailable.note(places[1].clone(), &none(), now);
        unavailable.note(places[0].clone(), &none(), now + Duration::from_secs(1));
        let later = now + Duration::from_secs(2);
        assert_eq!(shown(&unavailable.candidates(&places, &[], later)), ["t in b"]);
        unavailable.note(places[1].clone(), &none(), later);
        assert_eq!(unavailable.candidates(&places, &places[1..], later), []);
        unavailable.clear(&places[0]);
        assert_eq!(shown(&unavailable.candidates(&places, &places[1..], later)), ["t in a"]);
    }

    #[test]
    fn what_was_refused_to_oneself_is_not_tried_again_even_if_others_had_more_luck() {
        let places = all(&[(Market::OnDemand, names(&["t"]))], &names(&["a", "b"]));
        let unavailable = Unavailable::default();
        assert_eq!(shown(&unavailable.candidates(&places, &places[..1], Instant::now())), ["t in b"]);
        assert_eq!(unavailable.candidates(&places, &places, Instant::now()), []);
    }

    #[test]
    fn an_error_can_tell_what_was_refused_when_and_whether_waiting_helps() {
        let places = all(&[(Market::OnDemand, names(&["s", "l"]))], &names(&["a"]));
        let (now, mut unavailable) = (Instant::now(), Unavailable::default());
        unavailable.note(places[0].clone(), &refusal(ErrorKind::Invalid, "Unsupported"), now);
        assert!(!unavailable.lacked_capacity(&places, now));
        let later = now + Duration::from_secs(7);
        unavailable.note(places[1].clone(), &none(), later);
        assert!(unavailable.lacked_capacity(&places, later));
        assert_eq!(
            unavailable.told(&places, later),
            "s in a: Unsupported, 7 s ago; l in a: InsufficientInstanceCapacity, now"
        );
    }
}
