//! When the next call may go out: callers stand in line before a bucket of our own, so that a burst waits at home and is not refused.
//!
//! Other nodes draw from EC2's bucket too: when EC2 refuses nevertheless, everybody here pauses, longer with each refusal in a row and
//! by a random part, so that nodes do not come back together. Whoever was refused keeps its place: it is before all who came later.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::bucket::{Bucket, Rate};

/// One bucket and the line before it, shared by all callers of this process.
#[derive(Debug)]
pub(crate) struct Limiter {
    line: Mutex<Line>,
}

#[derive(Debug)]
struct Line {
    bucket: Bucket,
    next_number: u64,
    /// Who waits, by its number, and what wakes it.
    waiting: BTreeMap<u64, Arc<Notify>>,
}

/// What the line says to somebody in it.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Turn,
    /// First, and there is no token for so long.
    Wait(Duration),
    Behind,
}

impl Line {
    fn ask(&mut self, number: u64, now: Instant) -> Answer {
        if self.waiting.keys().next() != Some(&number) {
            return Answer::Behind;
        }
        match self.bucket.take(now) {
            Ok(()) => Answer::Turn,
            Err(wait) => Answer::Wait(wait),
        }
    }

    fn wake_first(&self) {
        if let Some(woken) = self.waiting.values().next() {
            woken.notify_one();
        }
    }
}

impl Limiter {
    pub(crate) fn new(rate: Rate) -> Self {
        let bucket = Bucket::full(rate, Instant::now());
        Self { line: Mutex::new(Line { bucket, next_number: 0, waiting: BTreeMap::new() }) }
    }

    /// A place at the end of the line.
    pub(crate) fn join(&self) -> Place<'_> {
        let mut line = self.locked();
        let number = line.next_number;
        line.next_number += 1;
        Place { limiter: self, number, turn: Turn::None, first_turn: None }
    }

    fn locked(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody's place in the line, for as long as it has calls to make.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    limiter: &'a Limiter,
    number: u64,
    turn: Turn,
    first_turn: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum Turn {
    None,
    /// A token was taken and is not used yet.
    Held,
}

impl Place<'_> {
    /// Waits for a turn; one that was not used yet is still there.
    ///
    /// # Cancel safety
    /// Dropped while waiting it takes nothing, and nobody waits for it.
    pub(crate) async fn turn(&mut self) {
        if self.turn == Turn::Held {
            return;
        }
        let waiting = Waiting::begin(self.limiter, self.number);
        loop {
            let answer = self.limiter.locked().ask(self.number, Instant::now());
            match answer {
                Answer::Turn => break,
                // Woken when a token comes back, and when the first leaves.
                Answer::Wait(wait) => drop(tokio::time::timeout(wait, waiting.woken.notified()).await),
                Answer::Behind => waiting.woken.notified().await,
            }
        }
        self.turn = Turn::Held;
        self.first_turn.get_or_insert_with(Instant::now);
    }

    /// Notes that the call goes out now.
    pub(crate) fn used(&mut self) {
        self.turn = Turn::None;
    }

    /// Notes that EC2 refused the call for its rate; answers for how long nobody asks again.
    pub(crate) fn refused(&self) -> Duration {
        self.limiter.locked().bucket.refused(Instant::now(), fastrand::f64())
    }

    /// Notes that a call was let through.
    pub(crate) fn served(&self) {
        self.limiter.locked().bucket.served();
    }

    /// How long ago the first turn was: what came before was our own line.
    pub(crate) fn since_first_turn(&self) -> Duration {
        self.first_turn.map_or(Duration::ZERO, |first| first.elapsed())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.turn == Turn::Held {
            let mut line = self.limiter.locked();
            line.bucket.give_back();
            line.wake_first();
        }
    }
}

/// An entry among those who wait, until its turn has come or it went away.
struct Waiting<'a> {
    limiter: &'a Limiter,
    number: u64,
    woken: Arc<Notify>,
}

impl<'a> Waiting<'a> {
    fn begin(limiter: &'a Limiter, number: u64) -> Self {
        let woken = Arc::new(Notify::new());
        limiter.locked().waiting.insert(number, woken.clone());
        Self { limiter, number, woken }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut line = self.limiter.locked();
        line.waiting.remove(&self.number);
        line.wake_first();
    }
}

#[cfg(test)]
mod tests;
