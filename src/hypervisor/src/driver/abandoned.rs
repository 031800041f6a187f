//! When a sandbox is over although nobody said so: the one decision, from what was seen. Looks at nothing itself.
//!
//! | seen | means | after |
//! |---|---|---|
//! | the last connection to the agent socket is gone, and so is the network namespace | the pod is over | [`CONFIRMATION`] |
//! | the last connection is gone, and so is the shim's process | nobody is left to stop it | `shim-gone-ttl` |
//! | the network namespace is gone | the pod is over, whoever still holds the socket | `netns-gone-ttl` |
//! | created and never started | the shim died in between | `unstarted-ttl` |
//!
//! A connection to the *hypervisor's* socket says nothing: the shims dial it anew for every call, or let it go while the pod lives.
//! Nor does a connection's end alone: a shim may dial again. A sandbox that is [`Attendance::None`] has a client that comes and goes.

use std::time::Duration;

use peerpods_podvm::admission::State;
use peerpods_podvm::annotations::PodRequest;

use crate::config::Config;
use crate::record::Record;

/// What could be a moment's appearance is looked at again after this.
pub(super) const CONFIRMATION: Duration = Duration::from_secs(1);

/// What was seen of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observation {
    pub(super) state: State,
    /// Since CreateVM.
    pub(super) age: Duration,
    pub(super) netns: Netns,
    pub(super) socket: Socket,
    pub(super) attendance: Attendance,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Netns {
    There,
    /// For so long.
    Gone(Duration),
}

/// The agent socket's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Socket {
    /// There is no link, or it did not answer.
    Unknown,
    /// Nobody was seen there yet.
    NeverHeld,
    /// At least one is open.
    Held,
    /// The last one was closed.
    LetGo { free: Duration, shim: Shim },
}

/// The process that connected last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shim {
    MayLive,
    Gone,
}

/// Whether somebody is expected to stay at the agent socket while the pod lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attendance {
    Expected,
    None,
}

impl Attendance {
    pub(super) fn of(request: &PodRequest) -> Self {
        if request.unattended { Self::None } else { Self::Expected }
    }
}

/// The times of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) unstarted: Duration,
    pub(super) netns_gone: Duration,
    pub(super) shim_gone: Duration,
}

impl Rules {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            unstarted: config.unstarted_ttl,
            netns_gone: config.netns_gone_ttl,
            shim_gone: config.shim_gone_ttl,
        }
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// Sooner than usual.
    LookAgain(Duration),
    Unwind(Why),
}

/// Why a sandbox is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    NeverStarted,
    NetnsGone,
    NetnsAndShimGone,
    ShimGone,
}

impl Why {
    /// For people.
    pub(super) fn sentence(self, seen: &Observation, record: &Record) -> String {
        let netns = record.netns.display();
        match self {
            Self::NeverStarted => format!("created {:.0?} ago and never started", seen.age),
            Self::NetnsGone => format!("its network namespace {netns} is gone"),
            Self::NetnsAndShimGone => {
                format!(
                    "its network namespace {netns} is gone, and the shim closed its last connection to the agent"
                )
            }
            Self::ShimGone => {
                "the shim's process is gone and nobody is connected to the agent: nobody is left to stop it"
                    .to_owned()
            }
        }
    }
}

/// The table of the module's first lines.
pub(super) fn decide(seen: &Observation, rules: &Rules) -> Verdict {
    if !matches!(seen.state, State::Created | State::Starting | State::Running) {
        return Verdict::Fine;
    }
    if seen.state == State::Created && seen.age >= rules.unstarted {
        return Verdict::Unwind(Why::NeverStarted);
    }
    if let Netns::Gone(gone) = seen.netns
        && gone >= rules.netns_gone
    {
        return Verdict::Unwind(Why::NetnsGone);
    }
    // A start in flight has a caller whose leaving ends it.
    let Socket::LetGo { free, shim } = seen.socket else { return Verdict::Fine };
    if seen.state == State::Starting {
        return Verdict::Fine;
    }
    match (seen.netns, shim) {
        (Netns::Gone(gone), _) if gone.min(free) >= CONFIRMATION => Verdict::Unwind(Why::NetnsAndShimGone),
        (Netns::Gone(_), _) => Verdict::LookAgain(CONFIRMATION),
        (Netns::There, Shim::Gone) if seen.attendance == Attendance::Expected && free >= rules.shim_gone => {
            Verdict::Unwind(Why::ShimGone)
        }
        (Netns::There, _) => Verdict::Fine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const RULES: Rules = Rules { unstarted: s(600), netns_gone: s(30), shim_gone: s(30) };
    const WELL: Observation = Observation {
        state: State::Running,
        age: s(3600),
        netns: Netns::There,
        socket: Socket::Held,
        attendance: Attendance::Expected,
    };

    const fn let_go(seconds: u64, shim: Shim) -> Socket {
        Socket::LetGo { free: s(seconds), shim }
    }

    #[test]
    fn a_sandbox_is_over_when_the_table_says_so_and_only_then() {
        use Shim::{Gone, MayLive};
        use Verdict::{Fine, LookAgain, Unwind};
        let gone = Netns::Gone;
        let table = [
            (Netns::There, Socket::Held, Fine),
            (Netns::There, Socket::Unknown, Fine),
            (Netns::There, Socket::NeverHeld, Fine),
            (Netns::There, let_go(86400, MayLive), Fine),
            (Netns::There, let_go(29, Gone), Fine),
            (Netns::There, let_go(30, Gone), Unwind(Why::ShimGone)),
            (gone(s(0)), let_go(86400, MayLive), LookAgain(CONFIRMATION)),
            (gone(s(86400)), let_go(0, Gone), Unwind(Why::NetnsGone)),
            (gone(s(2)), let_go(0, Gone), LookAgain(CONFIRMATION)),
            (gone(s(1)), let_go(1, MayLive), Unwind(Why::NetnsAndShimGone)),
            (gone(s(29)), Socket::Held, Fine),
            (gone(s(29)), Socket::Unknown, Fine),
            (gone(s(29)), Socket::NeverHeld, Fine),
            (gone(s(30)), Socket::Held, Unwind(Why::NetnsGone)),
        ];
        for (netns, socket, verdict) in table {
            let seen = Observation { netns, socket, ..WELL };
            assert_eq!(decide(&seen, &RULES), verdict, "{seen:?}");
        }
    }

    #[test]
    fn a_sandbox_that_nobody_attends_is_not_missed_by_its_shim() {
        let seen = Observation { socket: let_go(86400, Shim::Gone), attendance: Attendance::None, ..WELL };
        assert_eq!(decide(&seen, &RULES), Verdict::Fine);
        let over = Observation { netns: Netns::Gone(s(5)), ..seen };
        assert_eq!(decide(&over, &RULES), Verdict::Unwind(Why::NetnsAndShimGone));
    }

    #[test]
    fn only_what_was_created_expires_and_what_ends_already_is_left_alone() {
        let abandoned = Observation { netns: Netns::Gone(s(99)), socket: let_go(99, Shim::Gone), ..WELL };
        for (state, verdict) in [
            (State::None, Verdict::Fine),
            (State::Created, Verdict::Unwind(Why::NeverStarted)),
            (State::Starting, Verdict::Unwind(Why::NetnsGone)),
            (State::Running, Verdict::Unwind(Why::NetnsGone)),
            (State::Stopping, Verdict::Fine),
            (State::Gone, Verdict::Fine),
        ] {
            assert_eq!(decide(&Observation { state, ..abandoned }, &RULES), verdict, "{state}");
        }
        let starting = Observation { state: State::Starting, socket: let_go(99, Shim::Gone), ..WELL };
        assert_eq!(decide(&starting, &RULES), Verdict::Fine, "whoever starts it is there");
    }
}
