//! Many histories at once: every point of some workloads, then several deaths in others, until enough daemons have died.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::invariants::Violation;
use super::plan::Seed;
use super::rng::Rng;
use super::run::{History, play};
use super::world::Seam;

/// How many violations of one invariant in one workload are shown; they are one defect, as a rule.
const SHOWN: u32 = 2;
/// How many of those are shown.
const MOST: usize = 15;

/// What many histories came to.
#[derive(Debug, Default)]
pub struct Report {
    /// How many were played.
    pub histories: usize,
    /// Deaths of the daemon by seam.
    pub deaths: BTreeMap<Seam, u64>,
    /// Deaths by what was being done.
    pub steps: BTreeMap<&'static str, u64>,
    /// Points passed by seam.
    pub passed: BTreeMap<Seam, u64>,
    /// Deaths in histories with more than one: most of these are in a recovery from an earlier one.
    pub repeated: u64,
    /// Workloads that were killed at every single point.
    pub exhausted: Vec<u64>,
    /// The other seeds.
    pub seeds: Vec<Seed>,
    /// The broken invariants.
    pub violations: Vec<(Seed, Violation)>,
}

impl Report {
    /// How many daemons died.
    #[must_use]
    pub fn points(&self) -> u64 {
        self.deaths.values().sum()
    }

    fn add(&mut self, history: History) {
        self.histories += 1;
        for (_, seam, what) in &history.deaths {
            *self.deaths.entry(*seam).or_default() += 1;
            *self.steps.entry(what).or_default() += 1;
        }
        for (seam, count) in &history.passed {
            *self.passed.entry(*seam).or_default() += count;
        }
        if history.deaths.len() > 1 {
            self.repeated += u64::try_from(history.deaths.len()).unwrap_or_default();
        }
        if history.seed.crashes.len() > 1 {
            self.seeds.push(history.seed.clone());
        }
        let seed = history.seed;
        self.violations.extend(history.violations.into_iter().map(|violation| (seed.clone(), violation)));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (histories, points) = (self.histories, self.points());
        writeln!(
            f,
            "{points} deaths of the daemon in {histories} histories ({} in repeated ones)",
            self.repeated
        )?;
        writeln!(f, "{:<16}{:>10}{:>16}", "at a", "deaths", "points passed")?;
        for (seam, passed) in &self.passed {
            let deaths = self.deaths.get(seam).copied().unwrap_or_default();
            writeln!(f, "{:<16}{deaths:>10}{passed:>16}", seam.label())?;
        }
        let steps: Vec<String> = self.steps.iter().map(|(what, count)| format!("{what} {count}")).collect();
        writeln!(f, "by step: {}", steps.join(", "))?;
        writeln!(f, "every point of workloads {:?}", self.exhausted)?;
        let seeds: Vec<String> = self.seeds.iter().map(Seed::to_string).collect();
        writeln!(f, "and seeds {}", seeds.join(" "))?;
        let kinds: BTreeSet<_> = self.violations.iter().map(|(_, v)| v.invariant).collect();
        writeln!(f, "{} violations {kinds:?}", self.violations.len())?;
        let mut shown = BTreeMap::<_, u32>::new();
        for (seed, violation) in &self.violations {
            let times = shown.entry((violation.invariant, seed.workload)).or_default();
            *times += 1;
            if *times <= SHOWN && shown.len() <= MOST {
                writeln!(f, "  {violation}\n    replay: make crash-test SEED={seed}")?;
            }
        }
        Ok(())
    }
}

/// Plays histories from workload `first` on until about `points` daemons have died.
///
/// # Errors
/// When a history could not be played at all.
pub fn campaign(first: u64, points: u64, authority: &Path) -> std::io::Result<Report> {
    let mut report = Report::default();
    let mut seeds = Vec::new();
    let mut workload = first;
    while u64::try_from(seeds.len()).unwrap_or(u64::MAX) < points / 2 {
        let whole = play(&Seed::new(workload, []), None, authority)?;
        seeds.extend((1..=whole.points).map(|point| Seed::new(workload, [point])));
        report.exhausted.push(workload);
        report.add(whole);
        workload += 1;
    }
    play_all(&seeds, authority, &mut report)?;
    while report.points() < points {
        let missing = points - report.points();
        let seeds: Vec<Seed> =
            (workload..).take(usize::try_from(missing / 3 + 1).unwrap_or(1)).map(several).collect();
        workload += u64::try_from(seeds.len()).unwrap_or_default();
        play_all(&seeds, authority, &mut report)?;
    }
    Ok(report)
}

/// A workload with several deaths, many of them soon after the one before: in the recovery from it.
fn several(workload: u64) -> Seed {
    let mut luck = Rng::of(&[workload, 0xdead]);
    let mut point = 0;
    let crashes: Vec<u64> = (0..luck.between(2, 7))
        .map(|_| {
            let gap = if luck.chance(600) { luck.between(1, 25) } else { luck.between(1, 250) };
            point += gap;
            point
        })
        .collect();
    Seed::new(workload, crashes)
}

fn play_all(seeds: &[Seed], authority: &Path, report: &mut Report) -> std::io::Result<()> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let history = play(seed, None, authority).map(|mut history| {
                history.trace.clear();
                history
            });
            done.lock().unwrap().push(history);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut histories = done.into_inner().unwrap().into_iter().collect::<Result<Vec<_>, _>>()?;
    histories.sort_by_key(|history| history.seed.to_string());
    histories.into_iter().for_each(|history| report.add(history));
    Ok(())
}
