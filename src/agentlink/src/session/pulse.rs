//! When a connection is asked for a sign of life, and when it is taken for broken: pure, told the time.

use std::time::Duration;

use tokio::time::Instant;

/// A near end that heard nothing for so long asks.
pub(crate) const ASK_AFTER: Duration = Duration::from_secs(5);
/// A near end that gets no answer for so long takes the connection for broken.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);
/// A far end that hears nothing for so long does: three questions did not come.
pub(crate) const FAR_SILENCE: Duration = Duration::from_secs(20);
/// A confirmation waits so long for company.
pub(crate) const ACK_DELAY: Duration = Duration::from_millis(200);

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Near,
    Far,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Ask,
    Ack,
    Broken,
}

/// One connection's signs of life.
#[derive(Debug)]
pub(crate) struct Pulse {
    role: Role,
    heard: Instant,
    /// Since when an answer is waited for.
    asked: Option<Instant>,
    owes_ack: Option<Instant>,
}

impl Pulse {
    pub(crate) fn new(role: Role, now: Instant) -> Self {
        Self { role, heard: now, asked: None, owes_ack: None }
    }

    /// Anything came.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.asked = None;
    }

    /// Something went out that is answered.
    pub(crate) fn asked(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
    }

    /// Whether a confirmation is owed.
    pub(crate) fn owes_ack(&mut self, owes: bool, now: Instant) {
        self.owes_ack = if owes { self.owes_ack.or(Some(now)) } else { None };
    }

    /// When to look again.
    pub(crate) fn wake(&self) -> Instant {
        let pulse = match (self.role, self.asked) {
            (Role::Far, _) => self.heard + FAR_SILENCE,
            (Role::Near, Some(asked)) => asked + SILENCE,
            (Role::Near, None) => self.heard + ASK_AFTER,
        };
        self.owes_ack.map_or(pulse, |since| pulse.min(since + ACK_DELAY))
    }

    pub(crate) fn due(&mut self, now: Instant) -> Due {
        match (self.role, self.asked) {
            (Role::Far, _) if now >= self.heard + FAR_SILENCE => return Due::Broken,
            (Role::Near, Some(asked)) if now >= asked + SILENCE => return Due::Broken,
            (Role::Near, None) if now >= self.heard + ASK_AFTER => {
                self.asked = Some(now);
                return Due::Ask;
            }
            _ => {}
        }
        if self.owes_ack.is_some_and(|since| now >= since + ACK_DELAY) { Due::Ack } else { Due::Nothing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_near_end_asks_when_idle_and_gives_up_when_nothing_comes() {
        let start = Instant::now();
        let mut pulse = Pulse::new(Role::Near, start);
        assert_eq!(pulse.wake(), start + ASK_AFTER);
        assert_eq!(pulse.due(start + ASK_AFTER - MS), Due::Nothing);
        assert_eq!(pulse.due(start + ASK_AFTER), Due::Ask);
        assert_eq!(pulse.wake(), start + ASK_AFTER + SILENCE);
        pulse.heard(start + ASK_AFTER + MS);
        assert_eq!(pulse.due(start + ASK_AFTER + SILENCE), Due::Nothing);
        assert_eq!(pulse.due(start + 2 * ASK_AFTER + MS), Due::Ask);
        assert_eq!(pulse.due(start + 2 * ASK_AFTER + MS + SILENCE), Due::Broken);
    }

    #[test]
    fn bytes_that_nothing_answers_are_a_question_too() {
        let start = Instant::now();
        let mut pulse = Pulse::new(Role::Near, start);
        pulse.asked(start + 1000 * MS);
        pulse.asked(start + 2000 * MS);
        assert_eq!(pulse.due(start + 1000 * MS + SILENCE), Due::Broken);
    }

    #[test]
    fn a_far_end_only_waits() {
        let start = Instant::now();
        let mut pulse = Pulse::new(Role::Far, start);
        pulse.asked(start);
        assert_eq!(pulse.due(start + FAR_SILENCE - MS), Due::Nothing);
        assert_eq!(pulse.due(start + FAR_SILENCE), Due::Broken);
    }

    #[test]
    fn a_confirmation_is_not_put_off_by_later_bytes() {
        let start = Instant::now();
        let mut pulse = Pulse::new(Role::Far, start);
        pulse.owes_ack(true, start);
        pulse.owes_ack(true, start + 100 * MS);
        assert_eq!(pulse.wake(), start + ACK_DELAY);
        assert_eq!(pulse.due(start + ACK_DELAY), Due::Ack);
        pulse.owes_ack(false, start + ACK_DELAY);
        assert_eq!(pulse.due(start + ACK_DELAY), Due::Nothing);
    }
}
