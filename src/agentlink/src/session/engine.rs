//! Both directions of a session and what the present connection owes, pure: records in, records out. No time, no sockets.

use bytes::BytesMut;

use super::WINDOW;
use super::queue::BLOCK;
use super::record::{HEAD, Record, RecordError};
use super::replay::{Incoming, Misfit, Outgoing, Part};

/// About how much is prepared for the wire at once: four full TLS records, one system call.
pub(super) const BATCH: usize = 4 * (HEAD + 8 + BLOCK);
/// So much handed on is confirmed at once; less, with what goes out anyway or when asked to.
const CONFIRM: u64 = (WINDOW / 4) as u64;

/// What a peer does that is against the protocol. The session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Misfit(#[from] Misfit),
    #[error("a greeting in the midst of a session")]
    Greeting,
}

/// What a record was, for those who keep time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Sign,
    Reset(String),
}

/// What was prepared for the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Nothing,
    /// Nothing that the peer answers.
    Told,
    /// The peer will say something upon it.
    Asked,
}

/// A session's state on one side.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    pub(crate) outgoing: Outgoing,
    pub(crate) incoming: Incoming,
    /// The last ACK of this connection.
    acked: u64,
    /// Something came that wants an ACK, if only as a sign of life.
    owes_ack: bool,
    owes_ack_now: bool,
    owes_pong: bool,
    owes_ping: bool,
}

impl Engine {
    /// Begins a connection on which the peer has received everything before `received`.
    pub(crate) fn begin(&mut self, received: u64) -> Result<(), Violation> {
        self.outgoing.resume(received)?;
        // Confirmations of the last connection may be lost.
        (self.acked, self.owes_ack, self.owes_ack_now) = (0, true, true);
        (self.owes_pong, self.owes_ping) = (false, false);
        Ok(())
    }

    pub(crate) fn hear(&mut self, record: &Record<'_>) -> Result<Heard, Violation> {
        match *record {
            Record::Data { position, bytes } => {
                self.incoming.data(position, bytes)?;
                self.owes_ack = true;
            }
            Record::Fin { position } => {
                self.incoming.end(position)?;
                self.owes_ack = true;
            }
            Record::Ack { consumed } => self.outgoing.confirm(consumed)?,
            Record::Ping => self.owes_pong = true,
            Record::Pong => {}
            Record::Reset { reason } => {
                return Ok(Heard::Reset(String::from_utf8_lossy(reason).into_owned()));
            }
            Record::Hello { .. } | Record::Welcome { .. } | Record::Gone => return Err(Violation::Greeting),
        }
        Ok(Heard::Sign)
    }

    /// Appends what is to be sent now.
    pub(crate) fn emit(&mut self, out: &mut BytesMut) -> Sent {
        let mut sent = Sent::Nothing;
        if std::mem::take(&mut self.owes_ping) {
            Record::Ping.emit(out);
            sent = Sent::Asked;
        }
        if std::mem::take(&mut self.owes_pong) {
            Record::Pong.emit(out);
            sent = if sent == Sent::Nothing { Sent::Told } else { sent };
        }
        if self.outgoing.unsent() > 0 {
            // Room for heads, and an ACK.
            out.reserve((self.outgoing.unsent() + 8 * (HEAD + 8)).min(BATCH + HEAD + 8));
        }
        while out.len() < BATCH {
            match self.outgoing.next() {
                Some(Part::Data { position, bytes }) => Record::Data { position, bytes }.emit(out),
                Some(Part::End { position }) => Record::Fin { position }.emit(out),
                None => break,
            }
            sent = Sent::Asked;
        }
        if self.ack_is_due() || (self.owes_ack && sent != Sent::Nothing) {
            self.acked = self.incoming.consumed();
            (self.owes_ack, self.owes_ack_now) = (false, false);
            Record::Ack { consumed: self.acked }.emit(out);
            sent = if sent == Sent::Nothing { Sent::Told } else { sent };
        }
        sent
    }

    fn ack_is_due(&self) -> bool {
        let consumed = self.incoming.consumed();
        self.owes_ack_now
            || consumed.saturating_sub(self.acked) >= CONFIRM
            || (self.incoming.end_consumed() && consumed > self.acked)
    }

    /// An ACK waits for company or for [`Engine::ack_now`]. One that was asked for waits only for room on the wire: no clock helps it.
    pub(crate) fn owes_ack(&self) -> bool {
        !self.owes_ack_now && (self.owes_ack || self.incoming.consumed() > self.acked)
    }

    pub(crate) fn ack_now(&mut self) {
        self.owes_ack_now = true;
    }

    pub(crate) fn ping(&mut self) {
        self.owes_ping = true;
    }

    /// Gives back what memory the last bytes took and the next ones may not need. To be called now and then.
    pub(crate) fn rest(&mut self) {
        self.outgoing.rest();
        self.incoming.rest();
    }

    /// Forgets what waits to be handed on: nobody is there any more.
    pub(crate) fn discard(&mut self) -> bool {
        let mut any = false;
        while !self.incoming.waiting().is_empty() {
            self.incoming.consume(self.incoming.waiting().len());
            any = true;
        }
        any |= self.incoming.end_waits();
        self.incoming.consume_end();
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(engine: &mut Engine) -> Vec<u8> {
        let mut out = BytesMut::new();
        engine.emit(&mut out);
        let (mut rest, mut kinds) = (&out[..], Vec::new());
        while let Some((_, length)) = Record::parse(rest).unwrap() {
            kinds.push(rest[0]);
            rest = &rest[length..];
        }
        kinds
    }

    #[test]
    fn a_confirmation_waits_for_company_or_for_being_asked() {
        let mut engine = Engine::default();
        engine.begin(0).unwrap();
        assert_eq!(records(&mut engine), [5], "what the last connection confirmed may be lost");
        engine.hear(&Record::Data { position: 0, bytes: b"x" }).unwrap();
        engine.incoming.consume(1);
        assert!(records(&mut engine).is_empty() && engine.owes_ack());
        engine.outgoing.push(b"y");
        assert_eq!(records(&mut engine), [4, 5]);
        assert!(!engine.owes_ack());
        engine.hear(&Record::Data { position: 1, bytes: b"x" }).unwrap();
        engine.ack_now();
        assert_eq!(records(&mut engine), [5]);
        engine.hear(&Record::Fin { position: 2 }).unwrap();
        assert!(engine.discard() && !engine.discard());
        assert_eq!(records(&mut engine), [5], "the end is confirmed at once");
    }

    #[test]
    fn a_ping_is_answered_and_a_second_greeting_is_not_allowed() {
        let mut engine = Engine::default();
        engine.begin(0).unwrap();
        records(&mut engine);
        engine.hear(&Record::Ping).unwrap();
        assert_eq!(records(&mut engine), [7]);
        engine.ping();
        assert_eq!(records(&mut engine), [6]);
        assert_eq!(engine.hear(&Record::Gone), Err(Violation::Greeting));
        let reset = engine.hear(&Record::Reset { reason: b"why" }).unwrap();
        assert_eq!(reset, Heard::Reset("why".to_owned()));
    }
}
