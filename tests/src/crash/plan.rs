//! What a seed means: the workload, how rough the world is, and at which points the daemon dies. All of a history follows from it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::rng::Rng;

/// One history: a workload and the points at which the daemon dies in it. Written `17@230+245`; `17@` has no death.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// The workload.
    pub workload: u64,
    /// Points, counted over the whole history.
    pub crashes: BTreeSet<u64>,
}

impl Seed {
    /// The workload with these deaths.
    #[must_use]
    pub fn new(workload: u64, crashes: impl IntoIterator<Item = u64>) -> Self {
        Self { workload, crashes: crashes.into_iter().collect() }
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let points: Vec<String> = self.crashes.iter().map(u64::to_string).collect();
        write!(f, "{}@{}", self.workload, points.join("+"))
    }
}

/// A text that is no seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedError(String);

impl fmt::Display for SeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no seed; one looks like 17@230+245 (workload 17, deaths at points 230 and 245)",
            self.0
        )
    }
}

impl FromStr for Seed {
    type Err = SeedError;

    fn from_str(text: &str) -> Result<Self, SeedError> {
        let wrong = || SeedError(text.to_owned());
        let (workload, points) = text.split_once('@').unwrap_or((text, ""));
        let points = points.split('+').filter(|point| !point.is_empty()).map(str::parse);
        let crashes = points.collect::<Result<_, _>>().map_err(|_| wrong())?;
        Ok(Self { workload: workload.trim().parse().map_err(|_| wrong())?, crashes })
    }
}

/// A defect put into the simulated world on purpose, to see that the harness notices it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// The cloud makes two VMs of one creation.
    CloudMakesTwo,
    /// A deletion is confirmed and not done.
    DeletionLies,
    /// A VM that runs is said to have stopped.
    VmSaidToBeDead,
    /// The disk says that it wrote, and did not.
    JournalForgets,
    /// The disk has lost everything when a daemon starts.
    JournalLosesOnLoad,
    /// A write is never answered.
    JournalHangs,
    /// A link process that was told to end stays.
    LinkStays,
    /// Link processes end with the daemon.
    LinksDieWithTheDaemon,
    /// The VM is made anew again and again.
    CloudRecreates,
    /// The service is not told of the limit.
    NoLimit,
    /// The cloud makes a VM whenever it is asked to, and hides it for a while.
    CloudNotIdempotent,
}

/// Everything that was drawn for one history.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The workload's number.
    pub seed: u64,
    /// At which points the daemon dies.
    pub crashes: BTreeSet<u64>,
    /// Pods that are to run.
    pub pods: u64,
    /// How often in a thousand a provider's call fails.
    pub cloud_faults: u64,
    /// How often in a thousand a write fails.
    pub write_faults: u64,
    /// How often in a thousand the kernel refuses.
    pub netlink_faults: u64,
    /// How often in a thousand a link does not answer.
    pub link_faults: u64,
    /// How often in a thousand a new VM is invisible for a while.
    pub blindness: u64,
    /// How often in a thousand the node goes down together with the daemon.
    pub reboots: u64,
    /// The longest a creation takes, in milliseconds.
    pub slowest_creation: u64,
    /// The longest a deletion takes, in milliseconds.
    pub slowest_deletion: u64,
    /// The longest a creation stands in the provider's own line before the cloud hears of it, in milliseconds.
    pub longest_line: u64,
    /// The most VMs at once.
    pub limit: usize,
    /// Whether the image's guest is known to be one that is admitted by a token.
    pub own_guest: bool,
    /// What is wrong with this world on purpose.
    pub sabotage: Option<Sabotage>,
}

impl Plan {
    /// What `seed` means.
    #[must_use]
    pub fn of(seed: &Seed) -> Self {
        let mut luck = Rng::of(&[seed.workload, 0x91a6]);
        Self {
            seed: seed.workload,
            crashes: seed.crashes.clone(),
            pods: luck.between(2, 7),
            cloud_faults: *luck.pick(&[0, 0, 40, 120, 500]),
            write_faults: *luck.pick(&[0, 0, 20]),
            netlink_faults: *luck.pick(&[0, 0, 30]),
            link_faults: *luck.pick(&[0, 0, 20]),
            blindness: *luck.pick(&[0, 0, 300]),
            reboots: *luck.pick(&[0, 0, 250]),
            slowest_creation: *luck.pick(&[500, 5_000, 40_000]),
            slowest_deletion: *luck.pick(&[500, 5_000, 40_000]),
            limit: *luck.pick(&[2, 4, 10, 10]),
            own_guest: luck.chance(600),
            longest_line: *luck.pick(&[0, 0, 200_000]),
            sabotage: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_reads_as_it_is_written() {
        for text in ["17@230+245", "3@", "4@1"] {
            assert_eq!(text.parse::<Seed>().unwrap().to_string(), text);
        }
        assert_eq!("3".parse::<Seed>().unwrap(), Seed::new(3, []));
        for wrong in ["", "x@1", "3@a", "3@1-2"] {
            assert!(wrong.parse::<Seed>().is_err(), "{wrong}");
        }
    }
}
