//! EC2's side of one node: sees every call pass, counts instances behind the provider's back, gives them guests, and kills the daemon
//! at the calls it was told to.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::process::Child;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::form::{self, Parameters};
use crate::guests::Guests;
use crate::proxy::{self, Answer, Passage};

/// When something happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// The call has come and nothing was done: the daemon dies.
    KilledBefore,
    /// The call did its work: the daemon dies before it has the answer.
    KilledAfter,
    /// The call did its work and its answer is lost. The daemon lives on.
    AnswerLost,
}

/// Which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// This one of the node's life, from 1.
    Call(usize),
    /// The next of this action.
    Next(&'static str),
}

/// Something that is to happen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strike {
    pub(crate) at: At,
    pub(crate) moment: Moment,
}

/// What was seen so far.
#[derive(Default)]
struct Seen {
    /// Every call's action, in order.
    calls: Vec<String>,
    /// What is to happen, in order.
    ahead: VecDeque<Strike>,
    /// The next of it is due when this action's answer is there.
    due: Option<String>,
    /// Where something happened: number and action of the call.
    struck: Vec<(usize, String)>,
    /// Questions for instances that came since something last happened.
    looks: usize,
    daemon: Option<Pid>,
    /// Instances that were made.
    made: BTreeSet<String>,
    /// Most instances there were at once.
    most: usize,
}

/// EC2's side of one node.
pub(crate) struct Far {
    moto: SocketAddr,
    cluster: String,
    pub(crate) guests: Guests,
    seen: Mutex<Seen>,
}

impl Far {
    pub(crate) fn new(moto: SocketAddr, cluster: &str, guests: Guests, strikes: &[Strike]) -> Self {
        let seen = Seen { ahead: strikes.iter().copied().collect(), ..Seen::default() };
        Self { moto, cluster: cluster.to_owned(), guests, seen: Mutex::new(seen) }
    }

    /// Notes the daemon that `start` starts, before it can make a call.
    pub(crate) fn daemon(&self, start: impl FnOnce() -> Child) -> Child {
        let mut seen = self.seen();
        let child = start();
        seen.daemon = Some(Pid::from_raw(i32::try_from(child.id()).unwrap()));
        child
    }

    /// Whether the daemon was killed and no other started since.
    pub(crate) fn killed(&self) -> bool {
        self.seen().daemon.is_none()
    }

    /// Nothing happens any more.
    pub(crate) fn calm(&self) {
        let mut seen = self.seen();
        seen.ahead.clear();
        seen.due = None;
    }

    /// Every call's action so far.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.seen().calls.clone()
    }

    /// Where something happened: number and action of the call.
    pub(crate) fn struck(&self) -> Vec<(usize, String)> {
        self.seen().struck.clone()
    }

    /// Questions for instances that came since something last happened.
    pub(crate) fn looks_since(&self) -> usize {
        self.seen().looks
    }

    /// Instances that were made.
    pub(crate) fn made(&self) -> BTreeSet<String> {
        self.seen().made.clone()
    }

    /// Most instances there were at once.
    pub(crate) fn most(&self) -> usize {
        self.seen().most
    }

    /// Instances of the node's cluster that live, by moto itself.
    pub(crate) async fn living(&self) -> BTreeSet<String> {
        let states = ["pending", "running", "stopping", "stopped"];
        let names: Vec<String> = (1..=states.len()).map(|n| format!("Filter.2.Value.{n}")).collect();
        let mut filter = vec![("Filter.2.Name", "instance-state-name")];
        filter.extend(names.iter().map(String::as_str).zip(states));
        self.instances(&filter).await
    }

    /// Instances of the node's cluster that carry every tag of ours, alive or not, by moto itself.
    pub(crate) async fn tagged(&self, sandbox: &str) -> BTreeSet<String> {
        let filter = [
            ("Filter.2.Name", "tag:io.peerpods.managed"),
            ("Filter.2.Value.1", "true"),
            ("Filter.3.Name", "tag:io.peerpods.sandbox"),
            ("Filter.3.Value.1", sandbox),
        ];
        self.instances(&filter).await
    }

    async fn instances(&self, more: &[(&str, &str)]) -> BTreeSet<String> {
        form::texts(&self.describe("DescribeInstances", more).await, "instanceId").into_iter().collect()
    }

    /// What moto has of the node's cluster.
    pub(crate) async fn describe(&self, action: &str, more: &[(&str, &str)]) -> String {
        let mut filter =
            vec![("Filter.1.Name", "tag:io.peerpods.cluster"), ("Filter.1.Value.1", self.cluster.as_str())];
        filter.extend_from_slice(more);
        proxy::ask(self.moto, action, &filter).await
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Guests and numbers follow what a call did.
    async fn follow(&self, action: &str, parameters: &Parameters, xml: &str) {
        match action {
            "RunInstances" => {
                let made = form::texts(xml, "instanceId");
                let living = self.living().await.len();
                {
                    let mut seen = self.seen();
                    seen.made.extend(made.iter().cloned());
                    seen.most = seen.most.max(living);
                }
                for instance in made {
                    self.guests.launch(&instance, parameters).await;
                }
            }
            "TerminateInstances" => {
                for instance in form::list(parameters, "InstanceId") {
                    self.guests.end(&instance).await;
                }
            }
            _ => {}
        }
    }
}

impl Seen {
    /// Notes a call; what happens to it.
    fn note(&mut self, action: &str) -> Option<Strike> {
        self.calls.push(action.to_owned());
        let next = *self.ahead.front()?;
        let here = match next.at {
            At::Call(number) => number == self.calls.len(),
            At::Next(name) => name == action,
        };
        here.then_some(next)
    }

    /// Notes that the next of what is to happen happens now; the daemon, where that is its end. From here on it counts as killed.
    fn strike(&mut self, action: &str) -> Option<Pid> {
        let moment = self.ahead.pop_front()?.moment;
        self.struck.push((self.calls.len(), action.to_owned()));
        (self.looks, self.due) = (0, None);
        if moment == Moment::AnswerLost { None } else { self.daemon.take() }
    }
}

#[async_trait]
impl Passage for Far {
    async fn comes(&self, action: &str) -> bool {
        let victim = {
            let mut seen = self.seen();
            match seen.note(action).map(|strike| strike.moment) {
                Some(Moment::KilledBefore) => seen.strike(action),
                Some(Moment::KilledAfter | Moment::AnswerLost) => {
                    seen.due = Some(action.to_owned());
                    None
                }
                None => None,
            }
        };
        let Some(victim) = victim else { return true };
        kill_9(victim).await;
        false
    }

    async fn goes(&self, action: &str, parameters: &Parameters, (status, xml): (u16, String)) -> Answer {
        if status == 200 {
            self.follow(action, parameters, &xml).await;
        }
        let xml = self.guests.readdress(&xml).await;
        let victim = {
            let mut seen = self.seen();
            if seen.due.as_deref() != Some(action) {
                seen.looks += usize::from(action == "DescribeInstances");
                return Some((status, xml));
            }
            seen.strike(action)
        };
        if let Some(victim) = victim {
            kill_9(victim).await;
        }
        None
    }
}

/// Returns when the process does nothing any more.
async fn kill_9(process: Pid) {
    kill(process, Signal::SIGKILL).unwrap();
    let stat = format!("/proc/{process}/stat");
    // What it is called may have a parenthesis; its state comes after the last.
    let runs = || {
        let told = std::fs::read_to_string(&stat).unwrap_or_default();
        told.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
    };
    while runs() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
