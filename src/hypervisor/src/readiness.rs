//! Whether VMs can be made: asks the provider beside everything else, again and again until it is usable.
//!
//! Nothing but a new VM needs the answer. Sandboxes of an earlier run are listed, stopped and looked after meanwhile, however long the
//! provider takes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use peerpods_podvm::causes::chain;
use peerpods_provider::{ErrorKind, Facts, ProviderError};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::RunError;
use crate::backoff::{self, Backoff};
use crate::config::Config;
use crate::context::Parts;
use crate::failure::Failure;

/// A question that is not answered by then is asked anew.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Pauses after a failure that may pass by itself.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The pause after one that somebody has to mend.
const MENDING_PAUSE: Duration = Duration::from_secs(60);

/// What a new VM needs to know of the provider and of this node.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) facts: Facts,
    pub(crate) worker_address: IpNet,
}

/// What is known so far.
#[derive(Debug, Clone)]
enum State {
    /// No answer yet, or one that may soon be another.
    Asking(String),
    /// VMs can be made.
    Ready(Arc<Ready>),
    /// Somebody has to mend something; asked again every minute.
    Unusable(String),
}

/// The answer as far as there is one. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Readiness(watch::Sender<State>);

impl Readiness {
    pub(crate) fn new(provider: &str) -> Self {
        Self(watch::Sender::new(State::Asking(format!("provider {provider} has not answered yet"))))
    }

    /// What a new VM needs to know, or why there can be none now.
    pub(crate) fn now(&self) -> Result<Arc<Ready>, Failure> {
        match &*self.0.borrow() {
            State::Ready(ready) => Ok(ready.clone()),
            State::Asking(why) | State::Unusable(why) => Err(Failure::NotReady(why.clone())),
        }
    }

    /// The same, once the provider answered one way or the other, or after `patience`.
    pub(crate) async fn within(&self, patience: Duration) -> Result<Arc<Ready>, Failure> {
        let mut state = self.0.subscribe();
        let settled = state.wait_for(|state| !matches!(state, State::Asking(_)));
        let _late = tokio::time::timeout(patience, settled).await.is_err();
        self.now()
    }

    /// Asks until the provider is usable. Answers the first failure that somebody has to mend to `unusable`, and goes on asking.
    pub(crate) async fn keep_asking(self, config: Config, parts: Parts, unusable: impl FnOnce(RunError)) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut unusable = Some(unusable);
        loop {
            let error = match tokio::time::timeout(ANSWER_WITHIN, ask(&config, &parts)).await {
                Ok(Ok(ready)) => {
                    self.0.send_replace(State::Ready(Arc::new(ready)));
                    return;
                }
                Ok(Err(error)) => error,
                Err(_) => silent(parts.provider.name()),
            };
            let why = chain(&error);
            if may_pass(&error) {
                let pause = backoff.next(hint(&error));
                warn!(why, "no VM can be made yet; asking again in {pause:.1?}");
                self.0.send_replace(State::Asking(why));
                tokio::time::sleep(pause).await;
            } else {
                error!(why, "no VM can be made; looking after the sandboxes there are");
                self.0.send_replace(State::Unusable(why));
                if let Some(tell) = unusable.take() {
                    tell(error);
                }
                tokio::time::sleep(MENDING_PAUSE).await;
            }
        }
    }
}

fn silent(name: &'static str) -> RunError {
    let text = format!("no answer within {ANSWER_WITHIN:?}");
    let error = ProviderError::new(ErrorKind::Transient, "verify", text);
    RunError::Provider { name, source: error.into() }
}

fn may_pass(error: &RunError) -> bool {
    matches!(error, RunError::Provider { source, .. } if source.kind.may_pass())
}

fn hint(error: &RunError) -> Option<Duration> {
    match error {
        RunError::Provider { source, .. } => backoff::hint(source.as_ref()),
        _ => None,
    }
}

/// Asks the provider and finds the node's own address.
async fn ask(config: &Config, parts: &Parts) -> Result<Ready, RunError> {
    let name = parts.provider.name();
    let verified = parts.provider.verify().await;
    let facts = verified.map_err(|source| RunError::Provider { name, source: source.into() })?;
    for remark in &facts.remarks {
        info!(provider = name, "{remark}");
    }
    let worker_address = match facts.worker_address {
        Some(address) => address,
        None => worker_address(config.host_interface.as_deref()).await?,
    };
    info!(worker = %worker_address, mtu = facts.underlay_mtu, "VMs reach this node");
    Ok(Ready { facts, worker_address })
}

async fn worker_address(interface: Option<&str>) -> Result<IpNet, RunError> {
    let found = peerpods_podnet::worker_address(interface).await.map_err(RunError::WorkerAddress)?;
    if let IpAddr::V6(address) = found.addr() {
        warn!(%address, "the node's primary address is IPv6");
    }
    Ok(found)
}
