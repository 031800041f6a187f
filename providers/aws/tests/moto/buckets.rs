//! EC2's token buckets for `RunInstances`, as it publishes them: one of requests, one of the instances asked for.

use tokio::time::Instant;

/// Both buckets of an account in a region, and what came of them.
#[derive(Debug, Clone)]
pub(crate) struct Buckets {
    requests: Bucket,
    instances: Bucket,
    /// When each request was let through.
    pub(crate) let_through: Vec<Instant>,
    /// How many were not.
    pub(crate) refused: usize,
    began: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Bucket {
    left: f64,
    most: f64,
    per_second: f64,
    at: Option<Instant>,
}

impl Bucket {
    const fn new(most: f64, per_second: f64) -> Self {
        Self { left: most, most, per_second, at: None }
    }

    fn refill(&mut self, now: Instant) {
        let passed = self.at.replace(now).map_or(0.0, |at| now.duration_since(at).as_secs_f64());
        self.left = (self.left + passed * self.per_second).min(self.most);
    }

    /// The least time in which it gives so many.
    fn least_seconds(&self, tokens: usize) -> f64 {
        ((tokens as f64 - self.most) / self.per_second).max(0.0)
    }
}

impl Buckets {
    /// The published ones: 5 requests at once and 2 a second, 1000 instances at once and 2 a second.
    pub(crate) const fn published() -> Self {
        Self {
            requests: Bucket::new(5.0, 2.0),
            instances: Bucket::new(1000.0, 2.0),
            let_through: Vec::new(),
            refused: 0,
            began: None,
        }
    }

    /// Whether a request for so many instances passes; both buckets have to have enough.
    pub(crate) fn let_through(&mut self, instances: u32, now: Instant) -> bool {
        self.began.get_or_insert(now);
        self.requests.refill(now);
        self.instances.refill(now);
        let passes = self.requests.left >= 1.0 && self.instances.left >= f64::from(instances);
        if passes {
            self.requests.left -= 1.0;
            self.instances.left -= f64::from(instances);
            self.let_through.push(now);
        } else {
            self.refused += 1;
        }
        passes
    }

    /// From the first request to the last that was let through.
    pub(crate) fn took(&self) -> f64 {
        match (self.began, self.let_through.last()) {
            (Some(began), Some(last)) => last.duration_since(began).as_secs_f64(),
            _ => 0.0,
        }
    }

    /// The share of the rate both buckets allow.
    pub(crate) fn share(&self) -> f64 {
        let tokens = self.let_through.len();
        self.requests.least_seconds(tokens).max(self.instances.least_seconds(tokens)) / self.took()
    }
}

#[test]
fn five_at_once_then_two_a_second_and_a_thousand_instances() {
    let (now, second) = (Instant::now(), std::time::Duration::from_secs(1));
    let mut buckets = Buckets::published();
    let passed = |buckets: &mut Buckets, instances, at| {
        std::iter::repeat_with(|| buckets.let_through(instances, at)).take_while(|passed| *passed).count()
    };
    assert_eq!(passed(&mut buckets, 1, now), 5);
    assert_eq!(passed(&mut buckets, 1, now + second), 2);
    assert_eq!((buckets.refused, buckets.share()), (2, 1.0));
    let mut buckets = Buckets::published();
    assert_eq!(passed(&mut buckets, 400, now), 2);
}
