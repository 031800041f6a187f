//! The end of the service: what is waited for, for how long, and when the socket closes. Running pods are not looked at: their link
//! processes hold the shims' connections.
//!
//! ```text
//!  asked ── starts under way, deletions ──▶ drain_timeout ── late starts unwound ──▶ + LATE ── the socket closes ──▶ end
//!    asked again: starts unwound at once, deletions left to the next start
//! ```
//!
//! New connections are still taken until the socket closes: the Go shim dials anew for every call, so a StopVM could not come otherwise.
//! CreateVM and StartVM are refused from the first moment.

use std::time::{Duration, Instant};

use peerpods_podvm::SandboxId;
use peerpods_podvm::admission::State;
use tracing::{info, warn};

use crate::lifecycle::{Lifecycle, Status};
use crate::service::Service;

/// What starts that came to nothing in time get on top for being recorded as stopping and for their VMs' deletion. With the 3 s that the
/// socket takes to close ([`crate::rpc`]) a drain of 20 s fits the 30 s that Kubernetes gives a container.
const LATE: Duration = Duration::from_secs(4);
/// How long unwound starts may take until they are on record: a disk that hangs must not hold the process.
const RECORD_BUDGET: Duration = Duration::from_secs(3);
/// How often drivers are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How often it is told who is waited for when nothing changes.
const TELL: Duration = Duration::from_secs(5);

/// How the end was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Once,
    Twice,
}

/// Everything the decision needs; times count from the first signal.
#[derive(Debug, Clone, Copy)]
struct Seen {
    asked: Asked,
    elapsed: Duration,
    /// Creations and starts under way.
    starts: usize,
    deletions: usize,
    /// When starts under way were told to unwind.
    unwound: Option<Duration>,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Wait,
    /// Tell the starts under way to unwind.
    Unwind,
    /// Close the socket and end.
    Close,
}

fn step(seen: Seen, drain_timeout: Duration) -> Step {
    let late = seen.asked == Asked::Twice || seen.elapsed >= drain_timeout;
    let recording = |since: Duration| seen.elapsed < since + RECORD_BUDGET;
    match (seen.starts, seen.unwound) {
        // The socket closed after a wait that was the last: what came meanwhile is for the next start.
        (1.., None) if seen.elapsed >= drain_timeout + LATE => return Step::Close,
        (1.., None) => return if late { Step::Unwind } else { Step::Wait },
        (1.., Some(since)) => return if recording(since) { Step::Wait } else { Step::Close },
        (0, _) => {}
    }
    let deleting = seen.deletions > 0 && seen.elapsed < drain_timeout + LATE;
    if deleting && seen.asked == Asked::Once { Step::Wait } else { Step::Close }
}

/// Sandboxes that are not at rest.
#[derive(Debug, Default, PartialEq, Eq)]
struct UnderWay {
    starts: Vec<SandboxId>,
    deletions: Vec<SandboxId>,
}

fn under_way(service: &Service) -> UnderWay {
    let mut found = UnderWay::default();
    for (id, published) in service.list() {
        match published.state {
            State::None | State::Starting => found.starts.push(id),
            State::Stopping => found.deletions.push(id),
            State::Created | State::Running | State::Gone => {}
        }
    }
    found
}

/// Waits until nothing is under way that is worth waiting for. To be called when the end was asked for, which was at `began`, and again
/// when the socket is closed, for what came meanwhile; returns within `drain_timeout` and [`LATE`] after `began`.
pub(crate) async fn drain(service: &Service, lifecycle: &Lifecycle, drain_timeout: Duration, began: Instant) {
    let mut unwound = None;
    let mut told = Told::default();
    loop {
        let now = under_way(service);
        lifecycle.enter(Status::Draining { starts: now.starts.len() });
        let asked = if lifecycle.hurry.is_cancelled() { Asked::Twice } else { Asked::Once };
        let (elapsed, starts, deletions) = (began.elapsed(), now.starts.len(), now.deletions.len());
        let decided = step(Seen { asked, elapsed, starts, deletions, unwound }, drain_timeout);
        told.tell(now, decided, elapsed);
        match decided {
            Step::Close => return,
            Step::Unwind => {
                unwound = Some(elapsed);
                service.unwind_starts();
            }
            Step::Wait => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What the log already says.
#[derive(Default)]
struct Told {
    last: Option<(UnderWay, Duration)>,
}

impl Told {
    fn tell(&mut self, now: UnderWay, decided: Step, elapsed: Duration) {
        let (starts, deletions) = (now.starts.len(), now.deletions.len());
        let (start_of, deletion_of) = (names(&now.starts), names(&now.deletions));
        match decided {
            Step::Unwind => warn!(starts, start_of, ?elapsed, "starts are not done; unwinding them"),
            Step::Close if starts + deletions > 0 => {
                warn!(
                    starts,
                    start_of,
                    deletions,
                    deletion_of,
                    "not waiting any longer; the next start goes on with them"
                );
            }
            Step::Close => info!(?elapsed, "nothing is under way"),
            Step::Wait if self.is_news(&now, elapsed) => {
                info!(starts, start_of, deletions, deletion_of, ?elapsed, "draining: waiting");
                self.last = Some((now, elapsed));
            }
            Step::Wait => {}
        }
    }

    fn is_news(&self, now: &UnderWay, elapsed: Duration) -> bool {
        self.last.as_ref().is_none_or(|(last, at)| last != now || elapsed >= *at + TELL)
    }
}

/// The first few ids; a node may have hundreds.
fn names(ids: &[SandboxId]) -> String {
    const SHOWN: usize = 8;
    let mut text = ids.iter().take(SHOWN).map(SandboxId::as_str).collect::<Vec<_>>().join(" ");
    if ids.len() > SHOWN {
        text.push_str(" …");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    fn seen(elapsed: u64, starts: usize, deletions: usize) -> Seen {
        let elapsed = Duration::from_secs(elapsed);
        Seen { asked: Asked::Once, elapsed, starts, deletions, unwound: None }
    }

    #[test]
    fn what_is_under_way_is_waited_for_and_no_longer_than_allowed() {
        for (elapsed, starts, deletions, then) in [
            (0, 0, 0, Step::Close),
            (0, 1, 0, Step::Wait),
            (19, 1, 3, Step::Wait),
            (20, 1, 0, Step::Unwind),
            (0, 0, 1, Step::Wait),
            (23, 0, 1, Step::Wait),
            (24, 0, 1, Step::Close),
        ] {
            assert_eq!(
                step(seen(elapsed, starts, deletions), TIMEOUT),
                then,
                "{elapsed} s {starts} {deletions}"
            );
        }
    }

    #[test]
    fn a_second_signal_unwinds_at_once_and_waits_for_the_record_only() {
        let hurried = |seen: Seen| Seen { asked: Asked::Twice, ..seen };
        assert_eq!(step(hurried(seen(1, 2, 0)), TIMEOUT), Step::Unwind);
        assert_eq!(step(hurried(seen(1, 0, 5)), TIMEOUT), Step::Close, "deletions are on record");
        let recording = Seen { unwound: Some(Duration::from_secs(1)), ..hurried(seen(2, 2, 0)) };
        assert_eq!(step(recording, TIMEOUT), Step::Wait);
    }

    #[test]
    fn a_record_that_cannot_be_written_holds_nobody_for_long() {
        let stuck = |elapsed| Seen { unwound: Some(TIMEOUT), ..seen(elapsed, 1, 0) };
        assert_eq!(step(stuck(22), TIMEOUT), Step::Wait);
        assert_eq!(step(stuck(23), TIMEOUT), Step::Close);
    }

    #[test]
    fn the_end_comes_whatever_is_seen() {
        let limit = TIMEOUT + LATE.max(RECORD_BUDGET);
        for (starts, deletions) in [(0, 9), (9, 0), (9, 9)] {
            for unwound in [None, Some(TIMEOUT)] {
                let seen = Seen { unwound, elapsed: limit, ..seen(0, starts, deletions) };
                assert_eq!(step(seen, TIMEOUT), Step::Close, "{seen:?}");
            }
        }
    }

    #[test]
    fn the_log_names_who_is_waited_for_and_does_not_repeat_itself() {
        let one = || UnderWay { starts: vec!["a".parse().unwrap()], ..UnderWay::default() };
        let mut told = Told::default();
        assert!(told.is_news(&one(), Duration::ZERO));
        told.last = Some((one(), Duration::ZERO));
        assert!(!told.is_news(&one(), Duration::from_secs(1)));
        assert!(told.is_news(&one(), TELL));
        assert!(told.is_news(&UnderWay::default(), Duration::from_secs(1)));
        let many: Vec<SandboxId> = (0..9).map(|n| format!("s{n}").parse().unwrap()).collect();
        assert_eq!(names(&many), "s0 s1 s2 s3 s4 s5 s6 s7 …");
    }
}
