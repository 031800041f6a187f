//! Lines before a bucket like EC2's, in time that does not have to pass.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::join_all;

use super::*;

/// `RunInstances`, as EC2 publishes it.
const RUN: Rate = Rate { burst: 5.0, per_second: 2.0 };
const ONE_A_SECOND: Rate = Rate { burst: 1.0, per_second: 1.0 };

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
    let (mut refused, mut place) = (0, limiter.join());
    loop {
        place.turn().await;
        place.used();
        tokio::time::sleep(Duration::from_millis(30)).await;
        if front.lets_through() {
            place.served();
            return refused;
        }
        place.refused();
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
    let limiter = Limiter::new(ONE_A_SECOND);
    let mut first = limiter.join();
    first.turn().await;
    first.used();
    let leaves = async {
        let mut place = limiter.join();
        place.turn().await;
    };
    assert!(tokio::time::timeout(Duration::from_millis(900), leaves).await.is_err());
    let began = Instant::now();
    limiter.join().turn().await;
    assert!(began.elapsed() < Duration::from_millis(150), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn whoever_was_refused_is_before_all_who_came_later() {
    let limiter = Limiter::new(ONE_A_SECOND);
    let order = Mutex::new(Vec::new());
    let call = |name: &'static str, refusals: usize| {
        let (limiter, order) = (&limiter, &order);
        let mut place = limiter.join();
        async move {
            for left in (0..=refusals).rev() {
                place.turn().await;
                place.used();
                order.lock().unwrap().push(name);
                // While the call is out, the next in line waits already.
                tokio::time::sleep(Duration::from_millis(100)).await;
                match left {
                    0 => place.served(),
                    _ => drop(place.refused()),
                }
            }
        }
    };
    join_all([call("first", 2), call("second", 0), call("third", 1), call("fourth", 0)]).await;
    assert_eq!(
        order.into_inner().unwrap(),
        ["first", "first", "first", "second", "third", "third", "fourth"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_not_used_is_the_next_callers() {
    let limiter = Limiter::new(ONE_A_SECOND);
    let mut holds = limiter.join();
    holds.turn().await;
    let (mut waits, mut later) = (limiter.join(), limiter.join());
    let mut both = std::pin::pin!(async { tokio::join!(waits.turn(), later.turn()) });
    assert!(both.as_mut().now_or_never().is_none());
    let began = Instant::now();
    drop(holds);
    both.await;
    assert!(began.elapsed() < Duration::from_millis(1_100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn waiting_in_line_is_not_counted_from_the_first_turn_on() {
    let limiter = Limiter::new(ONE_A_SECOND);
    limiter.join().turn().await;
    let mut used = limiter.join();
    used.turn().await;
    used.used();
    let mut place = limiter.join();
    assert_eq!(place.since_first_turn(), Duration::ZERO);
    place.turn().await;
    assert!(place.since_first_turn() < Duration::from_millis(10), "{:?}", place.since_first_turn());
    place.used();
    place.turn().await;
    assert!(place.since_first_turn() >= Duration::from_millis(990), "{:?}", place.since_first_turn());
}
