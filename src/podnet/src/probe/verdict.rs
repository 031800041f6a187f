//! What follows from what came through. Pure.

use super::frame::{Heard, SMALL};
use super::{GuestKind, Way};

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
    /// They pass to the guest; it says nothing itself, as a stock one does not.
    GoodOneWay,
    TooSmall(Way),
    /// Nothing comes through one of the ways.
    Silent,
}

/// How far the guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guest {
    Booting,
    /// It has laid its end; what it announces may be on the way.
    Up,
    /// And that is long ago: what is not here is lost.
    LongUp,
}

/// `kind` is whose guest it is: ours announces itself a little after it has laid its end, and that is waited for.
pub(super) fn verdict(seen: &Seen, mtu: u32, guest: Guest, kind: GuestKind) -> Verdict {
    let small_mtu = mtu <= SMALL;
    match (seen.answered, seen.announced) {
        (Some(there), Some(back)) if there >= mtu && (back >= mtu || small_mtu) => Verdict::Good,
        (Some(there), None) if there >= mtu && (guest, kind) == (Guest::Up, GuestKind::Unknown) => {
            Verdict::GoodOneWay
        }
        _ if guest != Guest::LongUp => Verdict::Wait,
        (Some(there), None) if there >= mtu => Verdict::GoodOneWay,
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
        use Guest::{Booting, LongUp, Up};
        use GuestKind::{Ours, Unknown};
        let both = [Ours, Unknown].as_slice();
        let table = [
            // answered, announced, how far, whose
            ((1450, 1450), Booting, both, Verdict::Good),
            ((1450, 0), Booting, both, Verdict::Wait),
            ((1450, 0), Up, &[Unknown], Verdict::GoodOneWay),
            ((1450, 0), Up, &[Ours], Verdict::Wait),
            ((1450, 0), LongUp, both, Verdict::GoodOneWay),
            ((1450, SMALL), Up, both, Verdict::Wait),
            ((1450, SMALL), LongUp, both, Verdict::TooSmall(Way::FromVm)),
            ((1450, 1400), LongUp, both, Verdict::TooSmall(Way::FromVm)),
            ((SMALL, 1450), Up, both, Verdict::Wait),
            ((SMALL, 1450), LongUp, both, Verdict::TooSmall(Way::ToVm)),
            ((SMALL, 0), LongUp, both, Verdict::TooSmall(Way::ToVm)),
            ((0, 0), Up, both, Verdict::Wait),
            ((0, 0), LongUp, both, Verdict::Silent),
            ((0, 1450), LongUp, both, Verdict::Silent),
        ];
        for ((answered, announced), guest, kinds, expected) in table {
            for kind in kinds {
                let found = verdict(&seen(answered, announced), 1450, guest, *kind);
                assert_eq!(found, expected, "answered {answered} announced {announced} {guest:?} {kind:?}");
            }
        }
    }
}
