//! The burst: 500 sandboxes at once before EC2's published buckets for `RunInstances`, over HTTP by the real client, from one node and
//! from ten that know nothing of one another.
//!
//! `make aws-test` plays it in quick time (`clock`), `make aws-burst` in real time, which takes more than four minutes. Instances are
//! made up by the front: moto takes tens of milliseconds for each and slows down with their number.

use std::time::Duration;

use futures::future::join_all;
use peerpods_provider::{ErrorKind, Provider};
use peerpods_provider_aws::AwsProvider;
use peerpods_test_require::require;
use tokio::time::Instant;

use crate::buckets::Buckets;
use crate::clock;
use crate::server::NEEDS;
use crate::site::{Site, key, spec};

const SANDBOXES: usize = 500;
/// How long EC2 takes for a `RunInstances`.
const LAUNCH: Duration = Duration::from_millis(700);

/// What came of a burst.
struct Outcome {
    nodes: usize,
    failed: Vec<String>,
    /// From `create` to its answer, shortest first.
    waits: Vec<Duration>,
    buckets: Buckets,
}

impl Outcome {
    /// The wait that so many of a hundred do not exceed.
    fn percentile(&self, percent: usize) -> f64 {
        self.waits[(self.waits.len() * percent / 100).min(self.waits.len() - 1)].as_secs_f64()
    }

    fn print(&self) {
        println!(
            "| {:>5} | {:>8} | {:>7} | {:>7.1} | {:>7.1} % | {:>6.1} | {:>6.1} | {:>6.1} |",
            self.nodes,
            self.waits.len(),
            self.buckets.refused,
            self.buckets.took(),
            100.0 * self.buckets.share(),
            self.percentile(50),
            self.percentile(99),
            self.percentile(100),
        );
    }

    fn check(&self) {
        assert!(self.failed.is_empty(), "{} failed: {:?}", self.failed.len(), self.failed.first());
        assert!(self.buckets.share() >= 0.95, "{} of the allowed rate", self.buckets.share());
    }
}

fn print_head() {
    println!("| nodes | launched | refused | seconds | of allowed | p50 s | p99 s | last s |");
    println!("|---|---|---|---|---|---|---|---|");
}

async fn burst(site: &Site, nodes: usize, cluster: &str) -> Outcome {
    {
        let mut front = site.proxy.front();
        front.buckets = Some(Buckets::published());
        front.makes_up_instances = true;
        front.launch_takes = LAUNCH;
    }
    let providers: Vec<AwsProvider> = (0..nodes).map(|_| site.provider()).collect();
    let create = |number: usize| {
        let (provider, key) = (providers[number % nodes].clone(), key(cluster, &format!("s{number}")));
        async move {
            let began = Instant::now();
            let made = provider.create(&key, &spec(&format!("podvm-burst-{number}"))).await;
            (made, began.elapsed())
        }
    };
    let (mut failed, mut waits) = (Vec::new(), Vec::new());
    for (made, wait) in join_all((0..SANDBOXES).map(create)).await {
        match made {
            Ok(_) => waits.push(wait),
            Err(error) => failed.push(error.to_string()),
        }
    }
    waits.sort_unstable();
    let buckets = site.proxy.front().buckets.clone().unwrap();
    Outcome { nodes, failed, waits, buckets }
}

async fn quick(nodes: usize, cluster: &str) {
    let site = Site::here().await;
    let outcome = clock::quickly(&site.proxy, burst(&site, nodes, cluster)).await;
    print_head();
    outcome.print();
    outcome.check();
    assert_eq!(site.calls("DescribeImages").len(), nodes, "all of a node ask together");
    let calls = site.calls("RunInstances");
    let tokens: std::collections::BTreeSet<_> = calls.iter().map(|call| &call["ClientToken"]).collect();
    assert_eq!(tokens.len(), SANDBOXES, "a refusal for the rate is repeated under the same token");
}

#[tokio::test]
async fn a_burst_of_500_from_one_node_is_launched_at_the_rate_the_buckets_allow() {
    if !require("a_burst_of_500_from_one_node_is_launched_at_the_rate_the_buckets_allow", NEEDS) {
        return;
    }
    quick(1, "burst").await;
}

#[tokio::test]
async fn a_burst_of_500_from_ten_nodes_is_launched_at_the_rate_the_buckets_allow() {
    if !require("a_burst_of_500_from_ten_nodes_is_launched_at_the_rate_the_buckets_allow", NEEDS) {
        return;
    }
    quick(10, "bursts").await;
}

/// Both bursts at once, each in an account of its own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes more than four minutes: make aws-burst"]
async fn bursts_of_500_in_real_time() {
    if !require("bursts_of_500_in_real_time", NEEDS) {
        return;
    }
    let (one, ten) = (Site::new().await, Site::new().await);
    let outcomes = tokio::join!(burst(&one, 1, "real-burst"), burst(&ten, 10, "real-bursts"));
    print_head();
    outcomes.0.print();
    outcomes.1.print();
    outcomes.0.check();
    outcomes.1.check();
}

/// Fifty creations and three types, none of which is to be had: what one was refused the others do not ask for.
#[tokio::test]
async fn without_capacity_anywhere_a_burst_asks_once_for_each_sandbox_and_not_for_each_type() {
    if !require("without_capacity_anywhere_a_burst_asks_once_for_each_sandbox_and_not_for_each_type", NEEDS) {
        return;
    }
    let mut site = Site::here().await;
    site.config.instance_types = ["t3.medium", "m6a.large", "m6a.xlarge"].map(str::to_owned).to_vec();
    {
        let mut front = site.proxy.front();
        front.buckets = Some(Buckets::published());
        front.exhausted = vec!["t3.medium", "m6a.large", "m6a.xlarge"];
        front.launch_takes = LAUNCH;
    }
    let provider = site.provider();
    let create = |number: usize| {
        let (provider, key) = (provider.clone(), key("exhausted", &format!("s{number}")));
        async move { provider.create(&key, &spec("podvm-web")).await.unwrap_err() }
    };
    let errors = clock::quickly(&site.proxy, join_all((0..50).map(create))).await;
    let calls = site.calls("RunInstances").len();
    // The first five ask together, before anybody knows anything.
    assert!(calls <= 50 + 10, "{calls} calls for 50 sandboxes");
    for error in errors {
        let text = error.to_string();
        assert_eq!(error.kind, ErrorKind::Capacity, "{text}");
        assert!(["t3.medium", "m6a.large", "m6a.xlarge"].iter().all(|kind| text.contains(kind)), "{text}");
    }
}
