//! Time since the VM was started, for messages: the number a console's reader compares with the worker's.

use std::fmt;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A moment, counted from the start of the VM; shown as seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uptime(pub Duration);

impl Uptime {
    /// Now. Zero where the clock cannot be read.
    #[must_use]
    pub fn now() -> Self {
        Self(clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default())
    }

    /// From an earlier moment to this one.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Uptime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_grows_and_is_shown_in_seconds() {
        let first = Uptime::now();
        assert!(Uptime::now() >= first && first.0 > Duration::ZERO);
        assert_eq!(Uptime(Duration::from_millis(2415)).to_string(), "2.42s");
        assert_eq!(first.since(Uptime(first.0 + Duration::from_secs(1))), Duration::ZERO);
    }
}
