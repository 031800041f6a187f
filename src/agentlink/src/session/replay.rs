//! The two directions of a session, pure: what was sent and is kept until it is confirmed, what came and waits to be handed on.
//!
//! Positions count a direction's bytes from 0; its end takes one position more. Every number the peer sends is checked here.

use std::io::IoSlice;

use super::WINDOW;
use super::queue::{BLOCK, Queue};

/// What a peer may not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misfit {
    #[error("position {claimed} is claimed where {from} to {to} is possible")]
    Confirmed { claimed: u64, from: u64, to: u64 },
    #[error("bytes at position {came} where {expected} was expected")]
    Position { came: u64, expected: u64 },
    #[error("more than {WINDOW} bytes were sent unasked")]
    Window,
    #[error("bytes after the end")]
    AfterEnd,
}

/// A part of a direction to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Data { position: u64, bytes: &'a [u8] },
    End { position: u64 },
}

/// The direction away from here.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// From position `kept_from` on.
    kept: Queue,
    kept_from: u64,
    /// What goes over the present connection next.
    cursor: u64,
    /// Up to here something was sent, over whichever connection.
    sent: u64,
    ended: bool,
    end_confirmed: bool,
}

impl Outgoing {
    /// Gives back what memory is not needed now.
    pub(crate) fn rest(&mut self) {
        self.kept.rest();
    }

    /// How many blocks are kept for bytes to come.
    #[cfg(test)]
    pub(crate) fn spare(&self) -> usize {
        self.kept.spare()
    }

    /// How many bytes may be added.
    pub(crate) fn room(&self) -> usize {
        if self.ended { 0 } else { WINDOW.saturating_sub(self.kept.len()) }
    }

    /// How many bytes are to be taken at once: so many whole blocks that records come out full, and none before a block fits (the peer
    /// confirms long before so little is left).
    pub(crate) fn room_for(&self, blocks: usize) -> usize {
        let room = self.room();
        if room < BLOCK { 0 } else { room.min(self.kept.fill(blocks - 1)) }
    }

    /// Adds bytes, at most [`Outgoing::room`] of them; the rest is left out.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.kept.push(bytes.get(..self.room()).unwrap_or(bytes));
    }

    /// There will be no more.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// True when the peer has everything, the end included.
    pub(crate) fn end_confirmed(&self) -> bool {
        self.end_confirmed
    }

    /// How many bytes are still to go over the present connection.
    pub(crate) fn unsent(&self) -> usize {
        let end = self.kept_from + self.kept.len() as u64;
        usize::try_from(end.saturating_sub(self.cursor)).unwrap_or(0)
    }

    /// The next part for the present connection, which counts as sent.
    pub(crate) fn next(&mut self) -> Option<Part<'_>> {
        let position = self.cursor;
        let at = usize::try_from(position.saturating_sub(self.kept_from)).unwrap_or(usize::MAX);
        if at < self.kept.len() {
            let bytes = self.kept.part(at);
            self.cursor += bytes.len() as u64;
            self.sent = self.sent.max(self.cursor);
            return Some(Part::Data { position, bytes });
        }
        if !self.ended || self.end_confirmed || position != self.end_position() {
            return None;
        }
        self.cursor += 1;
        self.sent = self.sent.max(self.cursor);
        Some(Part::End { position })
    }

    /// The peer has consumed everything before `position`.
    pub(crate) fn confirm(&mut self, position: u64) -> Result<(), Misfit> {
        // Not up to `sent`: what went over an earlier connection and did not arrive cannot be consumed before it is sent again.
        self.check(position, self.cursor)?;
        let end = self.end_position();
        let gone = usize::try_from(position.min(end) - self.kept_from).unwrap_or(usize::MAX);
        self.kept.drop_front(gone);
        self.kept_from = position.min(end);
        self.end_confirmed = position > end;
        Ok(())
    }

    /// A new connection, over which the peer wants everything from `position` on.
    pub(crate) fn resume(&mut self, position: u64) -> Result<(), Misfit> {
        self.check(position, self.sent)?;
        self.cursor = position;
        Ok(())
    }

    fn check(&self, position: u64, to: u64) -> Result<(), Misfit> {
        let from = self.kept_from + u64::from(self.end_confirmed);
        if (from..=to).contains(&position) {
            return Ok(());
        }
        Err(Misfit::Confirmed { claimed: position, from, to })
    }

    fn end_position(&self) -> u64 {
        self.kept_from + self.kept.len() as u64
    }
}

/// The direction towards here.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    waiting: Queue,
    consumed: u64,
    ended: bool,
    end_consumed: bool,
}

impl Incoming {
    /// Gives back what memory is not needed now.
    pub(crate) fn rest(&mut self) {
        self.waiting.rest();
    }

    /// How many blocks are kept for bytes to come.
    #[cfg(test)]
    pub(crate) fn spare(&self) -> usize {
        self.waiting.spare()
    }

    /// What was received: where the peer has to go on.
    pub(crate) fn received(&self) -> u64 {
        self.consumed + self.waiting.len() as u64 + u64::from(self.ended && !self.end_consumed)
    }

    /// What was handed on.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed
    }

    pub(crate) fn data(&mut self, position: u64, bytes: &[u8]) -> Result<(), Misfit> {
        self.expect(position)?;
        if self.waiting.len() + bytes.len() > WINDOW {
            return Err(Misfit::Window);
        }
        self.waiting.push(bytes);
        Ok(())
    }

    pub(crate) fn end(&mut self, position: u64) -> Result<(), Misfit> {
        self.expect(position)?;
        self.ended = true;
        Ok(())
    }

    /// The beginning of what waits to be handed on; empty when nothing does.
    pub(crate) fn waiting(&self) -> &[u8] {
        self.waiting.part(0)
    }

    /// The same in several blocks; says how many.
    pub(crate) fn waiting_parts<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        self.waiting.parts(into)
    }

    /// So much of what waits was handed on.
    pub(crate) fn consume(&mut self, length: usize) {
        let length = length.min(self.waiting.len());
        self.waiting.drop_front(length);
        self.consumed += length as u64;
    }

    /// Everything was handed on but the end.
    pub(crate) fn end_waits(&self) -> bool {
        self.ended && !self.end_consumed && self.waiting.is_empty()
    }

    /// The end was handed on too.
    pub(crate) fn consume_end(&mut self) {
        if self.end_waits() {
            self.end_consumed = true;
            self.consumed += 1;
        }
    }

    pub(crate) fn end_consumed(&self) -> bool {
        self.end_consumed
    }

    fn expect(&self, position: u64) -> Result<(), Misfit> {
        if self.ended {
            return Err(Misfit::AfterEnd);
        }
        let expected = self.received();
        if position == expected { Ok(()) } else { Err(Misfit::Position { came: position, expected }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_confirmed_is_sent_again_from_where_the_peer_is() {
        let mut out = Outgoing::default();
        out.push(b"abcdef");
        assert_eq!(out.next(), Some(Part::Data { position: 0, bytes: b"abcdef" }));
        out.confirm(2).unwrap();
        out.end();
        assert_eq!(out.next(), Some(Part::End { position: 6 }));
        assert_eq!(out.next(), None);
        out.resume(4).unwrap();
        assert_eq!(out.next(), Some(Part::Data { position: 4, bytes: b"ef" }));
        assert_eq!(out.next(), Some(Part::End { position: 6 }));
        out.confirm(6).unwrap();
        assert!(!out.end_confirmed());
        out.resume(6).unwrap();
        assert_eq!(out.next(), Some(Part::End { position: 6 }));
        out.confirm(7).unwrap();
        assert!(out.end_confirmed());
        out.resume(7).unwrap();
        assert_eq!(out.next(), None);
    }

    #[test]
    fn nothing_that_was_not_sent_and_nothing_that_was_forgotten_can_be_claimed() {
        let mut out = Outgoing::default();
        out.push(&[0; 10]);
        assert_eq!(out.confirm(1), Err(Misfit::Confirmed { claimed: 1, from: 0, to: 0 }));
        out.next();
        out.confirm(5).unwrap();
        assert_eq!(out.confirm(11), Err(Misfit::Confirmed { claimed: 11, from: 5, to: 10 }));
        assert_eq!(out.resume(4), Err(Misfit::Confirmed { claimed: 4, from: 5, to: 10 }));
        out.end();
        assert!(out.confirm(11).is_err(), "the end was not sent");
        out.resume(7).unwrap();
        assert_eq!(out.confirm(8), Err(Misfit::Confirmed { claimed: 8, from: 5, to: 7 }), "it said it had 7");
    }

    #[test]
    fn both_buffers_are_bounded() {
        let mut out = Outgoing::default();
        out.push(&vec![1; WINDOW + 5]);
        assert_eq!((out.room(), out.kept.len()), (0, WINDOW));
        while out.next().is_some() {}
        out.confirm(WINDOW as u64).unwrap();
        assert_eq!(out.room(), WINDOW);

        let mut inc = Incoming::default();
        inc.data(0, &vec![1; WINDOW]).unwrap();
        assert_eq!(inc.data(WINDOW as u64, b"x"), Err(Misfit::Window));
        inc.consume(1);
        inc.data(WINDOW as u64, b"x").unwrap();
        while !inc.waiting().is_empty() {
            inc.consume(inc.waiting().len());
        }
        assert_eq!(inc.consumed(), WINDOW as u64 + 1);
    }

    #[test]
    fn bytes_must_fit_and_nothing_follows_the_end() {
        let mut inc = Incoming::default();
        inc.data(0, b"ab").unwrap();
        assert_eq!(inc.data(1, b"b"), Err(Misfit::Position { came: 1, expected: 2 }));
        assert_eq!(inc.end(3), Err(Misfit::Position { came: 3, expected: 2 }));
        inc.end(2).unwrap();
        assert_eq!(inc.received(), 3);
        assert_eq!(inc.data(3, b"c"), Err(Misfit::AfterEnd));
        assert_eq!(inc.end(3), Err(Misfit::AfterEnd));
        inc.consume_end();
        assert!(!inc.end_consumed(), "the end came before the bytes");
        inc.consume(2);
        inc.consume_end();
        assert_eq!((inc.consumed(), inc.received(), inc.end_consumed()), (3, 3, true));
    }
}
