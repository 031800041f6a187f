//! Which of several replicas leads: the holder of a Lease. The rules are client-go's, so that others' tools read it.
//!
//! A holder renews; others take over when nothing was renewed for the Lease's duration *by their own clock*: clocks of different nodes
//! are never compared. A holder that cannot renew stops leading before anybody may take over.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use peerpods_podvm::causes::chain;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long a Lease holds that is not renewed.
pub const DURATION: Duration = Duration::from_secs(15);
/// A holder that has not renewed for so long leads no more.
const GIVES_UP: Duration = Duration::from_secs(10);
/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// How long the work may take to end when the Lease is lost.
const ENDS_WITHIN: Duration = Duration::from_secs(3);

/// Who competes for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The Lease's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// This replica's; no two have the same.
    pub identity: String,
}

/// What is to be done about a Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There is none.
    Create,
    /// It is free, or ours.
    Write,
    /// Somebody else holds it.
    Wait,
}

/// A Lease as it was first seen.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    spec: LeaseSpec,
    since: Instant,
}

impl Seen {
    /// The same Lease is as old as when it was first seen.
    fn update(before: Option<Self>, spec: LeaseSpec, now: Instant) -> Self {
        match before {
            Some(before) if before.spec == spec => before,
            _ => Self { spec, since: now },
        }
    }
}

fn decide(seen: Option<&Seen>, identity: &str, now: Instant) -> Step {
    let Some(Seen { spec, since }) = seen else { return Step::Create };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let holds = seconds.map_or(DURATION, Duration::from_secs);
    let free = holder.is_empty() || holder == identity || now.saturating_duration_since(*since) >= holds;
    if free { Step::Write } else { Step::Wait }
}

/// The Lease as it is written by `identity`.
fn written(before: Option<&LeaseSpec>, identity: &str, now: MicroTime) -> LeaseSpec {
    let held = before.and_then(|spec| spec.holder_identity.as_deref());
    let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
    let ours = held == Some(identity);
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: before
            .filter(|_| ours)
            .and_then(|spec| spec.acquire_time.clone())
            .or(Some(now.clone())),
        renew_time: Some(now),
        lease_transitions: Some(if ours || before.is_none() {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        ..LeaseSpec::default()
    }
}

/// One replica in the competition.
struct Competitor {
    api: Api<Lease>,
    candidate: Candidate,
    seen: Option<Seen>,
}

/// Competes until `stop`; while this replica leads, `work` runs. It is told by its token to end when the Lease is lost, and is dropped
/// when it does not within a few seconds; when the Lease is won again it is begun anew. At the end the Lease is given back.
pub async fn lead<F, W>(client: Client, candidate: Candidate, stop: CancellationToken, mut work: W)
where
    F: Future<Output = ()>,
    W: FnMut(CancellationToken) -> F,
{
    let api = Api::namespaced(client, &candidate.namespace);
    let mut competitor = Competitor { api, candidate, seen: None };
    while competitor.wins(&stop).await {
        tracing::info!(
            lease = competitor.candidate.name,
            identity = competitor.candidate.identity,
            "leading"
        );
        let token = stop.child_token();
        let working = work(token.clone());
        tokio::pin!(working);
        let ended = tokio::select! {
            // Work that ends by itself without being told has failed as a whole: somebody else may do better.
            () = &mut working => true,
            () = competitor.holds() => {
                tracing::warn!(lease = competitor.candidate.name, "lost; not leading any more");
                false
            }
            () = stop.cancelled() => false,
        };
        token.cancel();
        if !ended && timeout(ENDS_WITHIN, &mut working).await.is_err() {
            tracing::warn!("work under way was dropped");
        }
        if stop.is_cancelled() {
            competitor.give_back().await;
            return;
        }
        sleep(EVERY).await;
    }
}

impl Competitor {
    /// Waits until the Lease is ours; false when it is time to stop.
    async fn wins(&mut self, stop: &CancellationToken) -> bool {
        loop {
            tokio::select! {
                () = stop.cancelled() => return false,
                won = self.look() => match won {
                    Ok(true) => return true,
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(error = chain(&error), lease = self.candidate.name, "cannot be had; tried again");
                    }
                },
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = sleep(EVERY) => {}
            }
        }
    }

    /// Renews the Lease until it is lost.
    async fn holds(&mut self) {
        let mut renewed = Instant::now();
        loop {
            sleep(EVERY).await;
            let left = GIVES_UP.saturating_sub(renewed.elapsed());
            match timeout(left, self.look()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    tracing::warn!(error = chain(&error), "the Lease is not renewed")
                }
                Err(_) => {}
            }
            if renewed.elapsed() >= GIVES_UP {
                return;
            }
        }
    }

    /// One look; whether the Lease is ours then.
    async fn look(&mut self) -> Result<bool, kube::Error> {
        let found = self.api.get_opt(&self.candidate.name).await?;
        let now = Instant::now();
        self.seen = found
            .as_ref()
            .map(|lease| Seen::update(self.seen.take(), lease.spec.clone().unwrap_or_default(), now));
        let step = decide(self.seen.as_ref(), &self.candidate.identity, now);
        if step == Step::Wait {
            return Ok(false);
        }
        let before = self.seen.as_ref().map(|seen| &seen.spec);
        let spec = written(before, &self.candidate.identity, MicroTime(k8s_openapi::jiff::Timestamp::now()));
        let result = match found {
            None => self.create(spec).await,
            Some(lease) => self.replace(lease, spec).await,
        };
        // Somebody was faster.
        match result {
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
            done => done.map(|()| true),
        }
    }

    async fn create(&self, spec: LeaseSpec) -> Result<(), kube::Error> {
        let metadata = ObjectMeta { name: Some(self.candidate.name.clone()), ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(spec) };
        self.api.create(&PostParams::default(), &lease).await.map(drop)
    }

    /// With the version that was seen.
    async fn replace(&self, lease: Lease, spec: LeaseSpec) -> Result<(), kube::Error> {
        let lease = Lease { spec: Some(spec), ..lease };
        self.api.replace(&self.candidate.name, &PostParams::default(), &lease).await.map(drop)
    }

    /// So that nobody has to wait. An API server that does not answer now is not waited for.
    async fn give_back(&self) {
        let giving = async {
            let Some(lease) = self.api.get_opt(&self.candidate.name).await? else { return Ok(()) };
            let spec = lease.spec.clone().unwrap_or_default();
            if spec.holder_identity.as_deref() != Some(&self.candidate.identity) {
                return Ok(());
            }
            self.replace(lease, LeaseSpec { holder_identity: Some(String::new()), ..spec }).await
        };
        match timeout(ENDS_WITHIN, giving).await {
            Ok(Ok::<(), kube::Error>(())) => tracing::info!(lease = self.candidate.name, "given back"),
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "the Lease is not given back")
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
