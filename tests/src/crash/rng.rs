//! Numbers that follow from a seed and nothing else. Not for secrets.

/// A generator (splitmix64): small, quick, the same on every machine.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The generator of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The generator of several numbers, the same whatever was drawn elsewhere: what happens to one sandbox does not depend on what
    /// happens to another.
    #[must_use]
    pub fn of(parts: &[u64]) -> Self {
        let mut rng = Self(0x5eed);
        for part in parts {
            rng.0 ^= *part;
            rng.0 = rng.draw();
        }
        rng
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `low..high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.draw() % (high - low).max(1)
    }

    /// True this often in a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.draw() % 1000 < per_mille
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = usize::try_from(self.draw()).unwrap_or(usize::MAX) % from.len();
        &from[index]
    }
}
