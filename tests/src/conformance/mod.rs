//! The shim conformance suite: models of the two Kata shims that drive a pod's whole life against a hypervisor socket, anybody's.
//!
//! `peerpods-conformance` is its program, `make conformance` runs it. Each life is played by a process of its own ([`play`]) that dies,
//! closes, gives up or waits where a case says so; requests no good shim makes come from this process ([`cases`]). The client is
//! written on the bytes ([`crate::shim::wire`]), not with the library that the service is made of. Against a foreign socket only the
//! public API is used, and what needs a look behind it is skipped with that reason.
//!
//! Which fact is held by what; `STEP` stands for every call of [`play::steps`] the fault can come to, `*` for both
//! shims:
//!
//! | fact | held by |
//! |---|---|
//! | kata 0.1 StopVM has one second with runtime-rs; a handler is dropped at its deadline | `rs/life`, `rs/stop-unknown-twice`, `rs/timed-out/StopVM` |
//! | 0.2 a handler is dropped with its connection, cleanup is not | `*/closed/STEP`, `*/reset/STEP`, `*/killed/StartVM` |
//! | 0.3 no StopVM after a shim's death | `*/killed/STEP` |
//! | 0.4 no StopVM after a failed CreateVM; for ids never created, never started, twice | `*/closed/CreateVM`, `own/createvm-makes-no-vm`, `*/stop-unknown…`, `*/stop-never-started…`, `rs/stop-twice-at-once` |
//! | 0.5 EOF on the agent socket kills the pod; the service's restart must not | `*/restart/STEP`; a stalled or broken network: `tests/network_cut.rs`, `src/agentlink/tests` |
//! | 0.6 two connections, one silent; dialled lazily | `rs/life`, `rs/silent-second-connection`, `go/twenty-connections-to-the-agent` |
//! | 0.7 CreateSandbox wipes /run/kata-containers | step `redial.Check` of `*/life` |
//! | 0.8 the pod's network namespace for containers | step `app.ReadStdout` of `*/life`: the pod's address in the container |
//! | 0.9, 0.12, 0.14 runtime-rs' configuration | not seen on the socket; belongs to the configuration we ship |
//! | 0.10 StartVM with 10,000 s | `rs/life`, `rs/start-for-10000-s` |
//! | 0.11, 1.1 the service's name `hypervisor.Hypervisor`, all unary | every case; other names: `request/unknown-service` |
//! | 0.13 fractional processors | `rs/life`; all forms: `src/podvm/src/annotations/tests.rs` |
//! | 0.15 hostNetwork pods have an empty path | `request/create-without-netns` |
//! | 0.16 messages up to 4 MiB, whole files with runtime-rs, 1 MiB pieces with Go | step `app.CopyFile` of `*/life`; `request/frame-of-4-MiB-and-1` |
//! | 1.2 the socket file exists while the service is away | `own/socket-file-outlives-the-service` |
//! | 1.3 nine annotations, each shim's values, CRI-O's name, initdata in both keys and forms | `*/life`, `go/life-of-a-crio-pod`, `go/crio-name-is-taken-apart`, `request/create-initdata`, `request/create-old-initdata`, `request/create-without-a-name` |
//! | 1.4 connections and deadlines of each shim; StartVM from inside the pod; path rules of the agent socket | `*/life`, `go/start-fails-then-stop`, `own/start-fails-at-the-provider`, `own/agent-socket-from-createvm-on` |
//! | 1.4 runtime-rs' connection is dead after a restart | `rs/restart/STEP` |
//! | 1.5 StartVM returns when the agent answers Check; deadlines of agent calls | `request/start-answers-when-the-agent-does`, `*/timed-out/STEP` |
//! | 2 wire format: ids, flags, status codes, cap, no cancel frame, metadata | `request/unknown-*`, `request/even-stream`, `request/frame-*`, `request/many-in-flight`, `request/metadata`, `*/timed-out/STEP` |
//! | 2.1 the RPC sequence of each shim, ConfigMap updates, long polls, Check every 5 s | `*/life`, `go/long-polls-for-six-checks` |
//! | 2.1 output to its end, told by nothing or an error; both are asked for again by old Go shims | steps `exec.ReadEnd`, `app.ReadEnd` of `*/life`; our own agent: `src/miniagent/tests/agent/streams.rs` |
//! | 2.1 the Go shim kills, waits for, and removes a container that has ended | steps `app.again.SignalProcess` to `pause.RemoveStaleMounts` of `go/life` |
//! | 3 SetPolicy and GetDiagnosticData may be UNIMPLEMENTED; DestroySandbox ends the agent | `*/life` |
//! | 3 GetOOMEvent deadlock, PID 1, configuration of the real agent | the real agent's; `src/guest` |
//! | 7 the suggested conformance set | `*/life`, `rs/stop-twice-at-once`, `request/frame-of-4-MiB-and-1`, `*/restart/STEP`; a 30 s stall: `tests/network_cut.rs` |
//! | R1 socket for root, one per node | `own/sockets-are-for-root-alone`; a second service: `tests/trouble.rs` |
//! | R2 CreateVM is cheap and idempotent per id | `request/create-*`, `own/createvm-makes-no-vm` |
//! | R3 StartVM joins, is cancelled by its caller, cleans up | `request/start-*`, `go/stop-while-starting`, `own/three-starts-one-vm` |
//! | R4 StopVM | `*/stop-*`, `*/closed/StopVM`, `*/reset/StopVM` |
//! | R6 orphans | `*/killed/STEP`; VMs without a record: `tests/orphans.rs` |
//! | adaptor 1.1 the private service `podvminfo.PodVMInfo` | not served; `request/unknown-service` |
//! | adaptor 1.2, 1.3 the two shims | as kata 1.3, 1.4 |
//! | adaptor 1.4 what CreateVM, StartVM and StopVM refuse, and what we do better than upstream | `request/*`, `go/stop-unknown` |
//! | adaptor 1.5 names of VMs | `src/podvm/src/naming.rs` |
//! | adaptor 3.1 calls in flight, out of order; every RPC passes | `request/unknown-agent-call`, long polls of `*/life`; under load: `src/agentlink/tests` |
//! | adaptor 3.2 TLS | `src/agentlink/tests` |
//! | adaptor 3.3 what the guest end changes | steps `CreateSandbox` (dns), `app.ReadStdout`; field by field: `src/agentlink/src/rewrite.rs` |

pub mod actor;
pub mod bed;
pub mod cases;
pub mod play;
pub mod report;
pub mod runner;
pub mod world;

use serde::{Deserialize, Serialize};

use self::play::Wrong;
use self::world::World;

/// Which shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// The Go shim.
    Go,
    /// runtime-rs.
    Rs,
}

impl Model {
    /// As in names of cases.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Rs => "rs",
        }
    }
}

/// Why a case did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Not {
    /// It could not be tried.
    Skipped(String),
    /// Something was not as it must be.
    Wrong(Wrong),
}

/// What is wrong at a step, and which fact says so.
#[must_use]
pub fn wrong(step: &str, rule: &str, expected: impl Into<String>, came: impl Into<String>) -> Not {
    let (step, rule) = (step.to_owned(), rule.to_owned());
    Not::Wrong(Wrong { step, expected: expected.into(), came: came.into(), rule })
}

/// A call's answer, which must be a success.
///
/// # Errors
/// When it is none.
pub fn succeeded<T>(step: &str, rule: &str, answer: ttrpc::Result<T>) -> Result<T, Not> {
    answer.map_err(|error| wrong(step, rule, "success", said(&error)))
}

/// What `google.rpc.Code` calls an error that nobody thought of: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL.
const NO_REFUSAL: [i32; 3] = [2, 4, 13];

/// A call's answer, which must be an error status; the status' text. Our own service must also have meant it.
///
/// # Errors
/// When it is a success, or there was no answer.
pub fn refused<T>(world: &World, step: &str, rule: &str, answer: ttrpc::Result<T>) -> Result<String, Not> {
    let unmeant: &[i32] = if world.is_ours() { &NO_REFUSAL } else { &[] };
    let expected = format!("an error status (none of {unmeant:?})");
    match answer {
        Err(error) if is_refusal(&error, unmeant) => Ok(said(&error)),
        Err(error) => Err(wrong(step, rule, expected, said(&error))),
        Ok(_) => Err(wrong(step, rule, expected, "success")),
    }
}

/// Whether somebody answered, and with none of these codes.
fn is_refusal(error: &ttrpc::Error, unmeant: &[i32]) -> bool {
    code(error).is_some_and(|code| !unmeant.contains(&code))
}

/// The number of an error's status, if it is one.
#[must_use]
pub fn code(error: &ttrpc::Error) -> Option<i32> {
    match error {
        ttrpc::Error::RpcStatus(status) => Some(status.code.value()),
        _ => None,
    }
}

fn said(error: &ttrpc::Error) -> String {
    match error {
        ttrpc::Error::RpcStatus(status) => format!("status {}: {}", status.code.value(), status.message),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::cases::{Extent, all};
    use crate::shim::wire::CallError;

    fn names(extent: Extent) -> Vec<String> {
        all(extent).into_iter().map(|case| case.name).collect()
    }

    /// Whether a name has the pieces of a pattern in their order, the first at its beginning.
    fn fits(pattern: &str, name: &str) -> bool {
        let mut pieces = pattern.split('*');
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        for piece in pieces {
            let Some(at) = rest.find(piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        rest.is_empty() || pattern.ends_with('*')
    }

    #[test]
    fn every_case_has_its_own_name_and_a_smaller_extent_is_part_of_the_whole() {
        let whole = names(Extent::Whole);
        let each: BTreeSet<_> = whole.iter().cloned().collect();
        assert_eq!(each.len(), whole.len());
        for extent in [Extent::Turns, Extent::Few] {
            assert!(names(extent).iter().all(|name| each.contains(name)), "{extent:?}");
        }
        assert_eq!(&names(Extent::Few)[..2], ["go/life", "rs/life"]);
    }

    #[test]
    fn neither_our_own_impatience_nor_an_accident_is_a_refusal() {
        let status = |code| CallError::Status { code, message: String::new() };
        let late = CallError::Deadline(std::time::Duration::from_secs(1));
        let is_refusal = |error: CallError, unmeant| super::is_refusal(&error.into(), unmeant);
        for unmeant in [&super::NO_REFUSAL[..], &[]] {
            assert!(!is_refusal(late.clone(), unmeant) && is_refusal(status(3), unmeant));
            assert!(!is_refusal(CallError::Closed(String::new()), unmeant));
        }
        for code in [2, 4, 13] {
            assert!(!is_refusal(status(code), &super::NO_REFUSAL) && is_refusal(status(code), &[]));
        }
    }

    #[test]
    fn every_step_dies_and_is_restarted_under_in_every_turn() {
        let turns = names(Extent::Turns);
        for model in [super::Model::Go, super::Model::Rs] {
            for step in super::play::steps::of(model) {
                for word in ["killed", "restart"] {
                    let name = format!("{}/{word}/{}", model.word(), step.name);
                    assert!(turns.contains(&name), "{name}");
                }
            }
        }
    }

    /// The table at the head of this file is for readers; a case that it names must be there.
    #[test]
    fn the_table_of_facts_names_cases_that_exist() {
        let names = names(Extent::Whole);
        let text: Vec<&str> =
            include_str!("mod.rs").lines().filter(|line| line.starts_with("//! |")).collect();
        let text = text.join("\n");
        let quoted = text.split('`').skip(1).step_by(2);
        let cases =
            quoted.filter(|q| ["go/", "rs/", "request/", "own/", "*/"].iter().any(|p| q.starts_with(p)));
        let mut seen = 0;
        for quoted in cases {
            let pattern = quoted.replace("STEP", "*").replace('…', "*");
            let found = match pattern.strip_prefix("*/") {
                Some(rest) => ["go", "rs"]
                    .iter()
                    .any(|model| names.iter().any(|name| fits(&format!("{model}/{rest}"), name))),
                None => names.iter().any(|name| fits(&pattern, name)),
            };
            assert!(found, "the table names {quoted}, which is no case");
            seen += 1;
        }
        assert!(seen > 40, "{seen}");
    }
}
