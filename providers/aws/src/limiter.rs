//! When the next call may go out: EC2's own token buckets, kept here so that a burst waits at home and is not refused.
//!
//! EC2 gives each account and region a bucket of requests per action; `RunInstances` has 5 and gets 2 a second, and one for the
//! instances asked for, 1000 and 2 a second. Ours asks for one instance a call, because each has user data of its own, so the first
//! is the one that counts. Other nodes draw from the same buckets: when EC2 refuses nevertheless, everybody here pauses, longer with
//! each refusal in a row and by a random part, so that nodes do not come back together.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The pause after the first refusal; doubles with each in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause. Many nodes that wait so long still ask more often than the bucket is refilled.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// How often the pause doubles at most.
const MOST_DOUBLINGS: u32 = 4;

/// How many calls at once, and how many a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    pub(crate) burst: f64,
    pub(crate) per_second: f64,
}

/// `RunInstances`: requests, by EC2's published buckets.
pub(crate) const RUN: Rate = Rate { burst: 5.0, per_second: 2.0 };
/// `TerminateInstances`: requests.
pub(crate) const TERMINATE: Rate = Rate { burst: 100.0, per_second: 5.0 };
/// Calls that change nothing and name what they ask for.
pub(crate) const DESCRIBE: Rate = Rate { burst: 100.0, per_second: 20.0 };

/// What is left of a bucket. Knows no clock: it is told what time it is.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    left: f64,
    at: Instant,
    closed_until: Option<Instant>,
    refused_in_a_row: u32,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, left: rate.burst, at: now, closed_until: None, refused_in_a_row: 0 }
    }

    /// Takes a token, or says how long there will be none.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
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

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * self.rate.per_second).min(self.rate.burst);
        self.at = now;
    }

    /// EC2 refused: its bucket is empty, whatever ours says. Answers the pause. Refusals of calls that were under way together are
    /// one.
    fn refused(&mut self, now: Instant, roll: f64) -> Duration {
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

    fn served(&mut self) {
        self.refused_in_a_row = 0;
    }
}

/// One bucket and the line before it, shared by all callers of this process.
#[derive(Debug)]
pub(crate) struct Limiter {
    bucket: Mutex<Bucket>,
    /// Whoever holds it is first; the lock is given in the order it was asked for.
    line: tokio::sync::Mutex<()>,
}

impl Limiter {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { bucket: Mutex::new(Bucket::full(rate, Instant::now())), line: tokio::sync::Mutex::default() }
    }

    /// Waits for a turn.
    ///
    /// # Cancel safety
    /// Dropped while waiting it leaves the line and takes nothing.
    pub(crate) async fn turn(&self) {
        let _first = self.line.lock().await;
        loop {
            let taken = self.locked().take(Instant::now());
            match taken {
                Ok(()) => return,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }

    /// Notes that EC2 refused a call for its rate; answers for how long nobody asks again.
    pub(crate) fn refused(&self) -> Duration {
        self.locked().refused(Instant::now(), fastrand::f64())
    }

    /// Notes that a call was let through.
    pub(crate) fn served(&self) {
        self.locked().served();
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::future::join_all;

    use super::*;

    /// EC2's front: a bucket of the published size, which refuses who comes too early.
    struct Front(Mutex<Bucket>);

    impl Front {
        fn new(rate: Rate) -> Arc<Self> {
            Arc::new(Self(Mutex::new(Bucket::full(rate, Instant::now()))))
        }

        fn lets_through(&self) -> bool {
            self.0.lock().unwrap().take(Instant::now()).is_ok()
        }
    }

    /// One VM's creation as `api` makes it: ask until EC2 takes it. Answers how often it was refused.
    async fn create(limiter: &Limiter, front: &Front) -> u32 {
        let mut refused = 0;
        loop {
            limiter.turn().await;
            tokio::time::sleep(Duration::from_millis(30)).await;
            if front.lets_through() {
                limiter.served();
                return refused;
            }
            limiter.refused();
            refused += 1;
        }
    }

    /// How long a burst takes over so many nodes, and how often it was refused.
    async fn burst(vms: usize, nodes: usize) -> (Duration, u32) {
        let front = Front::new(RUN);
        let limiters: Vec<_> = (0..nodes).map(|_| Arc::new(Limiter::new(RUN))).collect();
        let began = Instant::now();
        let creations = (0..vms).map(|vm| {
            let (limiter, front) = (limiters[vm % nodes].clone(), front.clone());
            tokio::spawn(async move { create(&limiter, &front).await })
        });
        let refused = join_all(creations).await.into_iter().map(Result::unwrap).sum();
        (began.elapsed(), refused)
    }

    /// What the bucket itself needs for so many.
    fn floor(vms: usize) -> f64 {
        (vms as f64 - RUN.burst) / RUN.per_second
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_500_on_one_node_is_launched_at_the_rate_the_bucket_allows() {
        let (took, refused) = burst(500, 1).await;
        let reached = floor(500) / took.as_secs_f64();
        assert!(reached >= 0.95, "{took:?}, {reached} of the allowed rate");
        assert!(refused < 25, "refused {refused} times");
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_500_over_50_nodes_is_launched_at_the_rate_the_bucket_allows() {
        let (took, refused) = burst(500, 50).await;
        let reached = floor(500) / took.as_secs_f64();
        assert!(reached >= 0.95, "{took:?}, {reached} of the allowed rate, refused {refused} times");
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_given_in_order_and_a_caller_that_leaves_takes_none() {
        let limiter = Limiter::new(Rate { burst: 1.0, per_second: 1.0 });
        limiter.turn().await;
        assert!(tokio::time::timeout(Duration::from_millis(900), limiter.turn()).await.is_err());
        let began = Instant::now();
        limiter.turn().await;
        assert!(began.elapsed() < Duration::from_millis(150), "{:?}", began.elapsed());
    }

    #[test]
    fn refusals_together_are_one_and_in_a_row_they_grow() {
        let now = Instant::now();
        let mut bucket = Bucket::full(RUN, now);
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
    fn no_number_of_refusals_makes_the_pause_longer_than_the_longest() {
        let mut now = Instant::now();
        let mut bucket = Bucket::full(RUN, now);
        for _ in 0..50 {
            let pause = bucket.refused(now, 0.999);
            assert!(pause <= LONGEST_PAUSE.mul_f64(1.5));
            now += pause;
        }
    }
}
