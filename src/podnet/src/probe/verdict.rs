//! What follows from what came through. Pure.

use super::Way;
use super::frame::{Heard, SMALL};

/// What came through so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seen {
    /// The largest question that the guest answered, as an MTU.
    pub(super) answered: Option<u32>,
    /// The largest announcement of the guest, as an MTU.
    pub(super) announced: Option<u32>,
}

impl Seen {
    pub(super) fn note(&mut self, heard: Heard) {
        match heard {
            Heard::Answer(mtu) => self.answered = self.answered.max(Some(mtu)),
            Heard::Announcement(mtu) => self.announced = self.announced.max(Some(mtu)),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is certain yet.
    Wait,
    /// Full packets pass both ways.
    Good,
    /// They pass to the guest; it says nothing itself, as a stock one.
    GoodOneWay,
    TooSmall(Way),
    /// Nothing comes through one of the ways.
    Silent,
}

/// `up`: the guest has laid its end; what it was to announce first is here or lost. `late`: and that is long ago.
pub(super) fn verdict(seen: &Seen, mtu: u32, up: bool, late: bool) -> Verdict {
    let small_mtu = mtu <= SMALL;
    match (seen.answered, seen.announced) {
        (Some(there), Some(back)) if there >= mtu && (back >= mtu || small_mtu) => Verdict::Good,
        (Some(there), None) if there >= mtu && up => Verdict::GoodOneWay,
        _ if !late => Verdict::Wait,
        // Without an answer nothing gets to the guest, whatever it says itself.
        (None, _) => Verdict::Silent,
        (Some(there), _) if there < mtu => Verdict::TooSmall(Way::ToVm),
        _ => Verdict::TooSmall(Way::FromVm),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(answered: u32, announced: u32) -> Seen {
        let some = |mtu: u32| Some(mtu).filter(|mtu| *mtu > 0);
        Seen { answered: some(answered), announced: some(announced) }
    }

    #[test]
    fn each_thing_that_can_be_seen_has_its_verdict() {
        let table = [
            // answered, announced, up, late
            ((1450, 1450), (false, false), Verdict::Good),
            ((1450, 0), (false, false), Verdict::Wait),
            ((1450, 0), (true, false), Verdict::GoodOneWay),
            ((1450, SMALL), (true, false), Verdict::Wait),
            ((1450, SMALL), (true, true), Verdict::TooSmall(Way::FromVm)),
            ((1450, 1400), (true, true), Verdict::TooSmall(Way::FromVm)),
            ((SMALL, 1450), (true, false), Verdict::Wait),
            ((SMALL, 1450), (true, true), Verdict::TooSmall(Way::ToVm)),
            ((SMALL, 0), (true, true), Verdict::TooSmall(Way::ToVm)),
            ((0, 0), (true, false), Verdict::Wait),
            ((0, 0), (true, true), Verdict::Silent),
            ((0, 1450), (true, true), Verdict::Silent),
        ];
        for ((answered, announced), (up, late), expected) in table {
            let found = verdict(&seen(answered, announced), 1450, up, late);
            assert_eq!(found, expected, "answered {answered} announced {announced} up {up} late {late}");
        }
    }
}
