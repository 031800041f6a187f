//! How long answers took: how many were within each of some bounds, as Prometheus counts it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const fn micros(n: u64) -> Duration {
    Duration::from_micros(n)
}

/// The bounds. An answer that took longer than the last is counted behind it.
pub const BOUNDS: [Duration; 12] = [
    micros(25),
    micros(50),
    micros(100),
    micros(250),
    micros(500),
    micros(1_000),
    micros(2_500),
    micros(5_000),
    micros(10_000),
    micros(50_000),
    micros(250_000),
    micros(1_000_000),
];

/// Answers by how long they took: from the last byte of the question until the first of the answer could be sent.
#[derive(Debug, Default)]
pub struct Took {
    within: [AtomicU64; BOUNDS.len() + 1],
    sum: AtomicU64,
}

/// What was counted until some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// How many were within each bound and not within the one before; the last is beyond all.
    pub within: [u64; BOUNDS.len() + 1],
    /// What all took together.
    pub sum: Duration,
}

impl Took {
    /// Counts one.
    pub fn record(&self, took: Duration) {
        let bound = BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS.len());
        // There is one more bucket than bounds.
        if let Some(bucket) = self.within.get(bound) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What was counted until now.
    #[must_use]
    pub fn counted(&self) -> Counted {
        Counted {
            within: self.within.each_ref().map(|bucket| bucket.load(Ordering::Relaxed)),
            sum: Duration::from_nanos(self.sum.load(Ordering::Relaxed)),
        }
    }
}

impl Counted {
    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.within.iter().sum()
    }

    /// What was counted since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut within = self.within;
        within.iter_mut().zip(before.within).for_each(|(now, before)| *now = now.saturating_sub(before));
        Self { within, sum: self.sum.saturating_sub(before.sum) }
    }

    /// The bound that this part of all was within; nothing when it was beyond all bounds.
    #[must_use]
    pub fn bound_of(&self, part: f64) -> Option<Duration> {
        let wanted = part * self.count() as f64;
        let mut so_far = 0;
        let reached = self.within.iter().position(|count| {
            so_far += count;
            so_far as f64 >= wanted
        });
        BOUNDS.get(reached?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_is_counted_once_where_it_belongs() {
        let took = Took::default();
        for answer in [0, 25, 26, 4_000, 5_000, 2_000_000] {
            took.record(micros(answer));
        }
        let counted = took.counted();
        assert_eq!(counted.within, [2, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1]);
        assert_eq!((counted.count(), counted.sum), (6, micros(2_009_051)));
        assert_eq!(counted.since(&counted), Counted::default());
    }

    #[test]
    fn a_part_of_all_is_within_a_bound() {
        let took = Took::default();
        (0..99).for_each(|_| took.record(micros(40)));
        took.record(micros(3_000));
        let counted = took.counted();
        assert_eq!(counted.bound_of(0.5), Some(micros(50)));
        assert_eq!(counted.bound_of(0.99), Some(micros(50)));
        assert_eq!(counted.bound_of(0.999), Some(micros(5_000)));
        (0..100).for_each(|_| took.record(micros(3_000_000)));
        assert_eq!(took.counted().bound_of(0.99), None);
    }
}
