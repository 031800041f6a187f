//! Runs cases: those that may beside one another, those that want a restart in groups, the others one by one.
//!
//! Where the service is ours, a witness lives all the while: a pod with a container whose shim must notice nothing of what the others do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::join_all;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::actor::{Actor, Life, SILENCE};
use super::cases::{self, Act, Case, Company, Ending, Extent, Held};
use super::report::{Outcome, Report, Row};
use super::world::{Sandbox, World, over};
use super::{Model, Not, wrong};

/// How long one case may take, its turn included: several of the longest silences, and a run is over all the same.
const LIMIT: Duration = SILENCE.saturating_mul(4);

/// What to run.
#[derive(Debug, Clone)]
pub struct Choice {
    /// How much of the suite.
    pub extent: Extent,
    /// Parts of names; a case that has one of them runs. None: all.
    pub only: Vec<String>,
    /// One shim's cases alone, and those that are no shim's.
    pub model: Option<Model>,
    /// How many at a time.
    pub jobs: usize,
}

impl Choice {
    /// The cases chosen.
    #[must_use]
    pub fn cases(&self) -> Vec<Case> {
        let named =
            |case: &Case| self.only.is_empty() || self.only.iter().any(|part| case.name.contains(part));
        let shims = |case: &Case| self.model.is_none() || case.model.is_none() || case.model == self.model;
        cases::all(self.extent).into_iter().filter(|case| named(case) && shims(case)).collect()
    }
}

/// Tells how far a run is.
pub type Progress = fn(&Row);

/// Runs the chosen cases and ends the service.
pub async fn run(world: &Arc<World>, choice: &Choice, progress: Progress) -> Report {
    let began = Instant::now();
    let cases = choice.cases();
    let witness = Witness::come(world, cases.len()).await;
    let mut rows = Vec::new();
    let with = |company: Company| {
        cases
            .iter()
            .enumerate()
            .filter(move |(_, case)| case.company == company)
            .map(|(n, case)| (n, case.clone()))
    };
    let jobs = choice.jobs.max(1);
    // Each a task of its own: one of the many that is busy must not make the others' clocks late.
    let together = with(Company::Any).map(|(n, case)| Going {
        n,
        row: tokio::spawn(one(world.clone(), case.clone(), progress)),
        case,
    });
    // Three times as many, because most of a fault's time is waiting.
    let together = futures::stream::iter(together).map(|going| going.row(world, progress));
    rows.extend(together.buffer_unordered(jobs * 3).collect::<Vec<_>>().await);
    let mut held = Vec::new();
    for group in with(Company::Restart).collect::<Vec<_>>().chunks(jobs) {
        held.extend(restart_under(world, group, progress).await);
    }
    rows.extend(join_all(held.into_iter().map(|going| going.row(world, progress))).await);
    for (n, case) in with(Company::Alone) {
        rows.push((n, one(world.clone(), case, progress).await));
    }
    if let Some(witness) = witness {
        rows.push((usize::MAX, witness.leave(world, progress).await));
    }
    rows.sort_by_key(|(n, _)| *n);
    world.close().await;
    Report {
        implementation: world.bed.name(),
        cases: rows.into_iter().map(|(_, row)| row).collect(),
        left: world.bed.end().await,
        seconds: began.elapsed().as_secs_f64(),
    }
}

async fn one(world: Arc<World>, case: Case, progress: Progress) -> Row {
    let began = Instant::now();
    if let Some(reason) = cannot(&world, &case) {
        return row(&world, &case, Err(Not::Skipped(reason)), began, progress);
    }
    let ending = within(&case.name, cases::run(&case, world.clone())).await;
    row(&world, &case, ending, began, progress)
}

/// Ends a case that hangs, by its name: a run must come to its end.
async fn within<T>(case: &str, work: impl Future<Output = Result<T, Not>>) -> Result<T, Not> {
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| {
        Err(wrong(
            case,
            "the suite itself: no case takes so long",
            "the case's end",
            format!("none for {LIMIT:?}"),
        ))
    })
}

/// A case on a task of its own.
struct Going {
    n: usize,
    case: Case,
    row: JoinHandle<Row>,
}

impl Going {
    /// What it came to; a task that panicked, too, has a line.
    async fn row(self, world: &World, progress: Progress) -> (usize, Row) {
        let ended = self.row.await.unwrap_or_else(|panic| {
            let told = wrong(&self.case.name, "the suite itself", "the case's end", panic.to_string());
            row(world, &self.case, Err(told), Instant::now(), progress)
        });
        (self.n, ended)
    }
}

fn cannot(world: &World, case: &Case) -> Option<String> {
    let uncontrolled = case.needs_control && !world.is_ours();
    uncontrolled.then(|| "needs control of the service".to_owned())
}

/// What a case came to. Of our own service everything can be tried, but for what its bed says it cannot (`untriable`; `None`: the service
/// is somebody's). Else a skip is a failure.
fn tried(case: &str, untriable: Option<&[&str]>, ending: Ending) -> Ending {
    match (ending, untriable) {
        (Err(Not::Skipped(reason)), Some(listed)) if !listed.contains(&case) => {
            let rule = "the suite itself: with our own service only what its bed lists is skipped";
            Err(wrong(case, rule, "the case to be tried", format!("skipped: {reason}")))
        }
        (ending, _) => ending,
    }
}

fn row(world: &World, case: &Case, ending: Ending, began: Instant, progress: Progress) -> Row {
    let untriable = world.is_ours().then(|| world.bed.untriable());
    let outcome = match tried(&case.name, untriable, ending) {
        Ok(note) => Outcome::Passed { note },
        Err(Not::Skipped(reason)) => Outcome::Skipped { reason },
        Err(Not::Wrong(wrong)) => Outcome::Failed(wrong),
    };
    let model = case.model.map_or("-", Model::word).to_owned();
    let row = Row { name: case.name.clone(), model, outcome, seconds: began.elapsed().as_secs_f64() };
    progress(&row);
    row
}

/// Brings every life of the group to its step, restarts the service under all of them, and lets them live to their ends. That they go is
/// waited for by what is answered.
async fn restart_under(world: &Arc<World>, group: &[(usize, Case)], progress: Progress) -> Vec<Going> {
    let began = Instant::now();
    if let Some(reason) = group.first().and_then(|(_, case)| cannot(world, case)) {
        let skipped = |(n, case): &(usize, Case)| {
            let told = row(world, case, Err(Not::Skipped(reason.clone())), began, progress);
            Going { n: *n, case: case.clone(), row: tokio::spawn(async move { told }) }
        };
        return group.iter().map(skipped).collect();
    }
    let bring = |case: &Case| {
        let (world, act, model) = (world.clone(), case.act, case.model);
        async move {
            match (act, model) {
                (Act::Fault(step, _), Some(model)) => Held::bring(world, model, step).await,
                _ => Err(Not::Skipped("no life to hold".to_owned())),
            }
        }
    };
    let held = join_all(group.iter().map(|(_, case)| within(&case.name, bring(case)))).await;
    world.bed.restart().await;
    let finish = |(case, held): (String, Result<Held, Not>)| async move {
        within(&case, async { held?.finish().await }).await
    };
    let names = group.iter().map(|(_, case)| case.name.clone());
    let finished = join_all(names.zip(held).map(finish)).await;
    let gone = group.iter().cloned().zip(finished).map(|((n, case), life)| {
        let (world, own) = (world.clone(), case.clone());
        let row = tokio::spawn(async move {
            let ending = within(&own.name, async { life?.gone().await }).await;
            row(&world, &own, ending, began, progress)
        });
        Going { n, case, row }
    });
    gone.collect()
}

/// A pod that lives through all of it.
struct Witness {
    sandbox: Sandbox,
    actor: Mutex<Actor>,
    began: Instant,
    came: Result<(), Not>,
}

impl Witness {
    /// Not for a handful of cases, nor where a service that is not ours gives too little room.
    async fn come(world: &Arc<World>, cases: usize) -> Option<Self> {
        if cases < 8 || world.bed.places() < 4 {
            return None;
        }
        let began = Instant::now();
        let sandbox = world.sandbox().await;
        let mut order = world.order(&sandbox, Model::Go, None);
        order.linger = true;
        let mut actor = world.actor(&order).await;
        let came = match actor.follow().await {
            Life::Holding(_) => Ok(()),
            other => over(other, &actor),
        };
        Some(Self { sandbox, actor: Mutex::new(actor), began, came })
    }

    async fn leave(self, world: &Arc<World>, progress: Progress) -> Row {
        let case = cases::witness();
        let ended = within(&case.name, async {
            self.came?;
            let mut actor = self.actor.lock().await;
            actor.go_on().await;
            let life = actor.follow().await;
            over(life, &actor)?;
            let rule = "facts/kata.md R4";
            world.gone(&self.sandbox, std::time::Duration::ZERO, rule).await?;
            Ok("a pod whose shim noticed nothing".to_owned())
        });
        row(world, &case, ended.await, self.began, progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_case_that_hangs_fails_by_its_name() {
        let ending = within("request/hangs", std::future::pending::<Ending>()).await;
        let Err(Not::Wrong(wrong)) = ending else { panic!("{ending:?}") };
        assert_eq!(wrong.step, "request/hangs");
        assert_eq!(within("request/ends", async { Ok(1) }).await, Ok(1));
    }

    #[test]
    fn a_case_that_is_skipped_has_failed_unless_the_service_is_somebodys() {
        let skipped = || Err(Not::Skipped("no gRPC".to_owned()));
        assert_eq!(tried("request/a", None, skipped()), skipped());
        assert_eq!(tried("request/a", Some(&["request/a"]), skipped()), skipped());
        assert!(matches!(tried("request/b", Some(&["request/a"]), skipped()), Err(Not::Wrong(_))));
        assert_eq!(tried("request/b", Some(&[]), Ok(String::new())), Ok(String::new()));
    }
}
