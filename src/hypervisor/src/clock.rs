//! The time of day, which records carry from one run to the next. A seam like the others: a simulated world has a time of its own.
//!
//! What lasts within one run is measured by the runtime's clock (`tokio::time::Instant`), which nobody sets.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tells the time of day.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl WallClock {
    /// A clock that answers the time since 1970 in this way.
    #[must_use]
    pub fn told_by(since_1970: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(since_1970))
    }

    /// Now, in milliseconds since 1970.
    #[must_use]
    pub fn unix_ms(&self) -> u64 {
        u64::try_from((self.0)().as_millis()).unwrap_or(u64::MAX)
    }

    /// How long ago that was, in milliseconds since 1970; nothing for a moment that is to come.
    #[must_use]
    pub fn since(&self, unix_ms: u64) -> Duration {
        Duration::from_millis(self.unix_ms().saturating_sub(unix_ms))
    }
}

/// This node's.
impl Default for WallClock {
    fn default() -> Self {
        Self::told_by(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WallClock").field(&self.unix_ms()).finish()
    }
}
