//! Where VMs are: many questions for single VMs become one `DescribeInstances`, so that calls per minute do not grow with the number of
//! VMs that are waited for.
//!
//! The first question opens a round; whoever asks before the round begins is in it. A round begins as soon as the last one began at
//! least [`APART`] ago. Nothing is kept: an answer is as fresh as the question.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_ec2::types::Filter;
use peerpods_podvm::ClusterId;
use peerpods_provider::{ErrorKind, ProviderError, VmKey};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::api::{Action, Api};
use crate::config::PublicAddress;
use crate::failure;
use crate::found::{self, Found};
use crate::site::Site;
use crate::tags;

/// Least time between the beginnings of two rounds: at most 300 calls a minute from a node, however many VMs it waits for.
const APART: Duration = Duration::from_millis(200);
/// How long the first question of a round waits for others.
const GATHER: Duration = Duration::from_millis(5);
/// Values one filter takes at EC2.
const MOST_VALUES: usize = 200;
/// Instances of one answer page.
const PAGE: i32 = 1000;

type Answer = Result<Vec<Found>, ProviderError>;

/// Asks EC2 for instances.
#[derive(Debug)]
pub(crate) struct Describer {
    api: Arc<Api>,
    public: PublicAddress,
    round: Mutex<Round>,
}

#[derive(Debug, Default)]
struct Round {
    waiting: Vec<(VmKey, oneshot::Sender<Answer>)>,
    began: Option<Instant>,
}

impl Describer {
    pub(crate) fn new(api: Arc<Api>, public: PublicAddress) -> Self {
        Self { api, public, round: Mutex::default() }
    }

    /// Every instance that was made for a key, ended ones too as long as EC2 shows them.
    ///
    /// # Cancel safety
    /// The round goes on for the others.
    pub(crate) async fn of_key(self: &Arc<Self>, site: &Site, key: &VmKey) -> Answer {
        let (sender, answer) = oneshot::channel();
        let opens = {
            let mut round = self.locked();
            round.waiting.push((key.clone(), sender));
            round.waiting.len() == 1
        };
        if opens {
            // A task of its own: whoever opened the round may be dropped.
            let (describer, site) = (self.clone(), site.clone());
            tokio::spawn(async move { describer.answer_round(&site).await });
        }
        answer.await.unwrap_or_else(|_| {
            Err(ProviderError::new(
                ErrorKind::Transient,
                format!("look for the VM of {key}"),
                "the question was lost",
            ))
        })
    }

    /// Every instance of a cluster.
    ///
    /// # Errors
    /// When EC2 could not be asked for all of it.
    pub(crate) async fn of_cluster(&self, site: &Site, cluster: &ClusterId) -> Answer {
        let operation = format!("list VMs of cluster {cluster}");
        self.pages(site, &operation, vec![filter(tags::CLUSTER, [cluster.to_string()])]).await
    }

    async fn answer_round(&self, site: &Site) {
        let last = self.locked().began;
        let early = last.map_or(Duration::ZERO, |began| APART.saturating_sub(began.elapsed()));
        tokio::time::sleep(early.max(GATHER)).await;
        let waiting = {
            let mut round = self.locked();
            round.began = Some(Instant::now());
            std::mem::take(&mut round.waiting)
        };
        let mut by_cluster: BTreeMap<ClusterId, BTreeSet<VmKey>> = BTreeMap::new();
        for (key, _) in &waiting {
            by_cluster.entry(key.cluster.clone()).or_default().insert(key.clone());
        }
        let mut answers = BTreeMap::new();
        for (cluster, keys) in by_cluster {
            answers.insert(cluster.clone(), self.of_keys(site, &cluster, &keys).await);
        }
        for (key, sender) in waiting {
            let answer = match answers.get(&key.cluster) {
                Some(Ok(found)) => Ok(found.iter().filter(|found| found.key == key).cloned().collect()),
                Some(Err(error)) => Err(failure::again(error)),
                None => Ok(Vec::new()),
            };
            // Whoever no longer waits does not mind.
            let _ = sender.send(answer);
        }
    }

    async fn of_keys(&self, site: &Site, cluster: &ClusterId, keys: &BTreeSet<VmKey>) -> Answer {
        let operation = match keys.first() {
            Some(key) if keys.len() == 1 => format!("look for the VM of {key}"),
            _ => format!("look for {} VMs of cluster {cluster}", keys.len()),
        };
        let sandboxes: Vec<String> = keys.iter().map(|key| key.sandbox.to_string()).collect();
        let mut found = Vec::new();
        for some in sandboxes.chunks(MOST_VALUES) {
            let filters = vec![
                filter(tags::CLUSTER, [cluster.to_string()]),
                filter(tags::SANDBOX, some.iter().cloned()),
            ];
            found.extend(self.pages(site, &operation, filters).await?);
        }
        Ok(found)
    }

    /// All pages of one question.
    async fn pages(&self, site: &Site, operation: &str, filters: Vec<Filter>) -> Answer {
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let send = |client: aws_sdk_ec2::Client| {
                let page = client.describe_instances().set_filters(Some(filters.clone())).max_results(PAGE);
                page.set_next_token(next.clone()).send()
            };
            let answer = self.api.call(&site.client, Action::Describe, operation, send).await?;
            let instances = answer.reservations().iter().flat_map(|reservation| reservation.instances());
            found.extend(instances.filter_map(|told| found::read(told, self.public)));
            next = answer.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn filter(tag: &str, values: impl IntoIterator<Item = String>) -> Filter {
    Filter::builder().name(format!("tag:{tag}")).set_values(Some(values.into_iter().collect())).build()
}
