//! Which request may be taken in which state of a sandbox.
//!
//! ```text
//! (none) --Create--> Created --Start--> Starting --ok--> Running
//!                       |                  | \--fail/deadline/cancel--> Stopping
//!                       +------Stop--------+--------Stop-------------->  Stopping --confirmed--> Gone
//! ```
//!
//! [`decide`] is the whole table; [`next`] says where a sandbox goes from where it is. Neither knows a lock, a clock or a VM: the
//! driver task that owns the sandbox asks `decide`, records what it takes, then calls `next`. The rules the table keeps (a property
//! test holds it to them): never two VMs for one sandbox, Stop is never denied, every StopVM ends in [`State::Gone`], a start in
//! flight at a crash ends in deletion, Running survives a crash, and a repeated request is never answered differently.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing is known of it.
    #[default]
    None,
    /// CreateVM was answered: the agent socket exists, nothing that costs money does.
    Created,
    /// StartVM was taken and recorded; a VM may exist from here on.
    Starting,
    /// The agent answered over the link.
    Running,
    /// It is to go; a VM may exist until the provider confirms that there is none.
    Stopping,
    /// The provider confirmed that nothing is left. As good as never known, except that a Start is told the truth.
    Gone,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "unknown",
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Gone => "gone",
        })
    }
}

/// What is asked. The service itself asks for [`Request::Stop`] too: for a sandbox never started in time, or whose pod network is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    /// CreateVM.
    Create,
    /// StartVM.
    Start,
    /// StopVM.
    Stop,
}

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Record it, then carry it out. A Stop is answered as soon as it is recorded.
    Queue,
    /// Stop only: give up the start in flight, answer its waiters with an error, then as [`Decision::Queue`].
    CancelAndQueue,
    /// Create only: it was taken before; give the answer that was given then.
    SameAnswer,
    /// The same work is under way; take part in it. A Start waits for its end; a Stop was recorded already, so it is answered now.
    Join,
    /// There is nothing to do; answer success.
    Done,
    /// Answer with an error.
    Deny(Reason),
}

impl Decision {
    /// Whether taking this decision changes the state, so that it has to be recorded before anything else happens.
    #[must_use]
    pub fn is_work(self) -> bool {
        matches!(self, Self::Queue | Self::CancelAndQueue)
    }
}

/// Why a request is denied, as a sentence for the caller (who knows which sandbox was meant, and says so).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reason {
    /// Start of something CreateVM was never called for.
    #[error(
        "the sandbox is unknown here: StartVM needs a CreateVM first, answered by this service on this node"
    )]
    Unknown,
    /// Start or Create while the VM is being removed.
    #[error("the sandbox is being stopped; a sandbox that was stopped cannot be used again, make a new one")]
    Stopping,
    /// Start after the VM was removed.
    #[error("the sandbox was stopped and its VM is gone; make a new sandbox")]
    Gone,
}

/// What happened to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A request was decided and, where [`Decision::is_work`], recorded.
    Accepted(Request),
    /// The start in flight ended well: the agent answered.
    Started,
    /// The start in flight ended otherwise: error, deadline, or its caller went away.
    StartFailed,
    /// The provider confirmed that nothing of the sandbox is left.
    DeletionConfirmed,
    /// The service was started again and read this state from its journal.
    DaemonRestarted,
}

/// The admission table: what to do with `request` when the sandbox is in `state`.
#[must_use]
pub fn decide(state: State, request: Request) -> Decision {
    use Decision::{CancelAndQueue, Deny, Done, Join, Queue, SameAnswer};
    match (request, state) {
        (Request::Create, State::None | State::Gone) => Queue,
        (Request::Create, State::Created | State::Starting | State::Running) => SameAnswer,
        (Request::Create, State::Stopping) => Deny(Reason::Stopping),

        (Request::Start, State::None) => Deny(Reason::Unknown),
        (Request::Start, State::Created) => Queue,
        (Request::Start, State::Starting) => Join,
        (Request::Start, State::Running) => Done,
        (Request::Start, State::Stopping) => Deny(Reason::Stopping),
        (Request::Start, State::Gone) => Deny(Reason::Gone),

        (Request::Stop, State::None | State::Gone) => Done,
        (Request::Stop, State::Created | State::Running) => Queue,
        (Request::Stop, State::Starting) => CancelAndQueue,
        (Request::Stop, State::Stopping) => Join,
    }
}

/// Where `event` takes a sandbox that is in `state`.
///
/// An event that does not fit the state changes nothing: a start that ends well after its Stop was taken does not bring the sandbox
/// back.
#[must_use]
pub fn next(state: State, event: Event) -> State {
    match (event, state) {
        (Event::Accepted(request), _) if decide(state, request).is_work() => match request {
            Request::Create => State::Created,
            Request::Start => State::Starting,
            Request::Stop => State::Stopping,
        },
        (Event::Started, State::Starting) => State::Running,
        // Whoever waited for a start in flight saw the connection end, and kubelet makes a new sandbox: what exists is deleted.
        (Event::StartFailed | Event::DaemonRestarted, State::Starting) => State::Stopping,
        (Event::DeletionConfirmed, State::Stopping) => State::Gone,
        // The journal keeps no record of what is gone.
        (Event::DaemonRestarted, State::Gone) => State::None,
        (
            Event::Accepted(_)
            | Event::Started
            | Event::StartFailed
            | Event::DeletionConfirmed
            | Event::DaemonRestarted,
            _,
        ) => state,
    }
}

#[cfg(test)]
mod tests;
