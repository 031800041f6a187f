//! Small changes to inputs, for the replay without libFuzzer: what cannot be guided by coverage is at least not only what was seen before.

use fastrand::Rng;

/// Words of the formats that come in from outside.
const WORDS: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\n",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"-1",
    b"0",
    b"4294967296",
    b"1e999",
    b"::ffff:",
    b"/32",
    b"\x00\x40\x00\x01",
    b"\x7f\xff\xff\xff",
    b"H4sI",
    b"../",
    b"grpc.AgentService",
    b"CreateSandbox",
    b"\r\n\r\n",
    b"  - path: ",
];

/// A changed copy: of `input`, with parts of `other`.
#[must_use]
pub fn change(rng: &mut Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(0..=out.len());
        let end = (at + rng.usize(0..16)).min(out.len());
        match rng.u8(0..7) {
            0 => drop(out.drain(at..end)),
            1 => drop(out.splice(at..at, rng.choice(WORDS).copied().unwrap_or_default().iter().copied())),
            2 => drop(out.splice(at..end, rng.choice(WORDS).copied().unwrap_or_default().iter().copied())),
            3 => drop(out.splice(at..at, std::iter::repeat_with(|| rng.u8(..)).take(3).collect::<Vec<_>>())),
            4 => {
                let from = rng.usize(0..=other.len());
                let to = (from + rng.usize(0..64)).min(other.len());
                out.splice(at..end, other.get(from..to).unwrap_or_default().iter().copied());
            }
            5 => out.truncate(at),
            _ => {
                if let Some(byte) = out.get_mut(at) {
                    *byte ^= 1 << rng.u8(0..8);
                }
            }
        }
    }
    out
}
