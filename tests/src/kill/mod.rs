//! `kill -9` of the node service, many times, under pods that must not notice: how often and when ([`Plan`], [`Dice`]), the pods
//! ([`counter`]), and the service as a process whose cloud lives on ([`node`]). Holds no judgement of its own: suites assert.

pub mod churn;
pub mod counter;
pub mod node;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How much is killed, from the environment; without it as much as fits into `make test`.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// `KILLS`: of the service with fake VMs.
    pub kills: u32,
    /// `SANDBOXES`: how many run meanwhile, at most 200.
    pub sandboxes: u8,
    /// `QEMU_KILLS`: of `peerpods hypervisor` with a real VM.
    pub qemu_kills: u32,
    /// `SEED`: decides when each kill comes. What it meets is also a matter of the machine's pace.
    pub seed: u64,
}

impl Plan {
    /// Reads it.
    ///
    /// # Panics
    /// When a variable is no number.
    #[must_use]
    pub fn from_environment() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            kills: variable("KILLS", 5),
            sandboxes: variable("SANDBOXES", 8),
            qemu_kills: variable("QEMU_KILLS", 2),
            seed: variable("SEED", u64::from(since_1970.subsec_nanos())),
        }
    }
}

fn variable<T: std::str::FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number that fits")),
        Err(_) => default,
    }
}

/// Numbers that a seed decides (`splitmix64`).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// A time shorter than `bound` milliseconds.
    pub fn millis(&mut self, bound: u64) -> Duration {
        Duration::from_millis(self.below(bound))
    }

    /// When the next kill comes.
    pub fn moment(&mut self) -> Moment {
        match self.below(4) {
            0 => Moment::WhileItStarts(self.millis(80)),
            _ => Moment::WhileItServes(self.millis(1_200)),
        }
    }
}

/// A moment in the life of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// So long after its process was started, ready or not.
    WhileItStarts(Duration),
    /// So long after it answered.
    WhileItServes(Duration),
}

/// How long services took from their start to their first answer.
#[derive(Debug, Default)]
pub struct Readiness(Vec<Duration>);

impl Readiness {
    /// Notes one.
    pub fn note(&mut self, took: Duration) {
        self.0.push(took);
    }
}

impl std::fmt::Display for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort();
        match (sorted.first(), sorted.get(sorted.len() / 2), sorted.last()) {
            (Some(min), Some(median), Some(max)) => {
                write!(
                    f,
                    "ready after {min:.0?} / {median:.0?} / {max:.0?} (min/median/max of {})",
                    sorted.len()
                )
            }
            _ => f.write_str("never seen ready"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_everything() {
        let moments = |seed| {
            let mut dice = Dice::new(seed);
            (0..20).map(|_| dice.moment()).collect::<Vec<_>>()
        };
        assert_eq!(moments(1), moments(1));
        assert_ne!(moments(1), moments(2));
        assert!(moments(1).iter().any(|m| matches!(m, Moment::WhileItStarts(_))));
    }
}
