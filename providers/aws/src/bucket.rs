//! One of EC2's token buckets, kept here as EC2 keeps it. Pure: it is told what time it is.
//!
//! EC2 gives each account and region a bucket of requests for each action, and for some another one for what is asked for: of
//! `RunInstances` it lets 5 requests through at once and 2 a second, with 1000 instances at once and 2 a second. Ours asks for one
//! instance a call, because each has user data, tags and a client token of its own, so the first is the one that counts.

use std::time::Duration;

use tokio::time::Instant;

/// The pause after the first refusal; doubles with each in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause. Not longer than a bucket takes to fill by much: when the other nodes are done, whoever still pauses lets what
/// comes in then go to waste. With 8 s one burst in thirty stayed below 95 % of the rate, with 4 s none below 98 %.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// How often the pause doubles at most.
const MOST_DOUBLINGS: u32 = 3;

/// How many calls at once, and how many a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    pub(crate) burst: f64,
    pub(crate) per_second: f64,
}

/// `TerminateInstances`: requests, by EC2's published buckets.
pub(crate) const TERMINATE: Rate = Rate { burst: 100.0, per_second: 5.0 };
/// Calls that change nothing and name what they ask for.
pub(crate) const DESCRIBE: Rate = Rate { burst: 100.0, per_second: 20.0 };

/// What is left of a bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    left: f64,
    at: Instant,
    closed_until: Option<Instant>,
    refused_in_a_row: u32,
}

impl Bucket {
    pub(crate) fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, left: rate.burst, at: now, closed_until: None, refused_in_a_row: 0 }
    }

    /// Takes a token, or says how long there will be none.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.refill(now);
        let closed = self.closed_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        if closed > Duration::ZERO {
            return Err(closed);
        }
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        // Never nothing: a rounding must not make a busy loop.
        let wait = Duration::from_secs_f64((1.0 - self.left) / self.rate.per_second);
        Err(wait.max(Duration::from_millis(1)))
    }

    /// Takes a token back that was not used.
    pub(crate) fn give_back(&mut self) {
        self.left = (self.left + 1.0).min(self.rate.burst);
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * self.rate.per_second).min(self.rate.burst);
        self.at = now;
    }

    /// EC2 refused: its bucket is empty, whatever ours says. Answers the pause. Refusals of calls that were under way together are
    /// one.
    pub(crate) fn refused(&mut self, now: Instant, roll: f64) -> Duration {
        self.refill(now);
        let already = self.closed_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        if already > Duration::ZERO {
            return already;
        }
        let step = (FIRST_PAUSE * 2_u32.pow(self.refused_in_a_row.min(MOST_DOUBLINGS))).min(LONGEST_PAUSE);
        let pause = step.mul_f64(0.5 + roll);
        self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
        self.left = self.left.min(1.0);
        self.closed_until = Some(now + pause);
        pause
    }

    pub(crate) fn served(&mut self) {
        self.refused_in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 5.0, per_second: 2.0 };

    #[test]
    fn refusals_together_are_one_and_in_a_row_they_grow() {
        let now = Instant::now();
        let mut bucket = Bucket::full(RATE, now);
        let first = bucket.refused(now, 0.5);
        assert_eq!(bucket.refused(now, 0.5), first);
        assert_eq!(bucket.take(now), Err(first));
        let later = now + first;
        assert_eq!(bucket.refused(later, 0.5), first * 2);
        bucket.served();
        let later = later + first * 2;
        assert_eq!(bucket.refused(later, 0.5), first);
    }

    #[test]
    fn what_is_given_back_can_be_taken_and_is_no_more_than_the_bucket_holds() {
        let now = Instant::now();
        let mut bucket = Bucket::full(RATE, now);
        bucket.give_back();
        let taken = std::iter::repeat_with(|| bucket.take(now)).take_while(Result::is_ok).count();
        assert_eq!(taken, 5);
        bucket.give_back();
        assert_eq!(bucket.take(now), Ok(()));
    }

    #[test]
    fn no_number_of_refusals_makes_the_pause_longer_than_the_longest() {
        let mut now = Instant::now();
        let mut bucket = Bucket::full(RATE, now);
        for _ in 0..50 {
            let pause = bucket.refused(now, 0.999);
            assert!(pause <= LONGEST_PAUSE.mul_f64(1.5));
            now += pause;
        }
    }
}
