//! What must hold for whatever comes in from outside: one property a parser, for libFuzzer and for an ordinary test alike.
//!
//! Each file in `targets/` is one target; its first lines say what must hold. "No panic" is the least of it: what is read is written again as
//! it was, two implementations agree, what is refused is refused in few words, and every run stays within a number of bytes on the heap that is
//! a fixed part plus so much a byte of input ([`allocation`]). `make fuzz` runs the targets under libFuzzer; `tests/replay.rs` plays the corpora and
//! changed inputs ([`mutation`]) through the same functions in every `cargo test`.
//!
//! The corpora: golden files and journal fixtures of the crates, netlink answers of a Linux 6.18 (a pod's namespace as Flannel and as Calico lay
//! it, with our redirection and with others'; statistics left out for size), hellos of OpenSSL 3, certificates made for this, the forms
//! that unit tests know, and short histories of sessions.
//!
//! Parsers that are private to their crates have doors behind the feature `fuzzing`, in a module of that name. They hold no behaviour.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a property that does not hold is a panic"
)]

pub mod allocation;
pub mod input;
pub mod mutation;
pub mod targets;

pub use targets::{TARGETS, Target};

/// Runs a target's property on an input, within its memory.
///
/// # Panics
/// When the property does not hold: that is a finding.
pub fn run(target: &Target, data: &[u8]) {
    let data = data.get(..target.max_len).unwrap_or(data);
    let ((), peak) = allocation::peak(|| (target.check)(data));
    let allowed = target.memory + target.memory_per_byte * data.len();
    assert!(
        peak <= allowed,
        "{} bytes of input took {peak} bytes of memory, more than {allowed}",
        data.len()
    );
}

/// The program of a target, for libFuzzer.
#[macro_export]
macro_rules! program {
    ($name:ident) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::run(&$crate::targets::$name::TARGET, data));
    };
}
