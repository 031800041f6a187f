//! The end of a VM's console, which the guest wrote, on its way into an error.
//!
//! Whatever the guest wrote, the text is at most four lines joined on one, has no character that steers a terminal, and a panic of the kernel is in it
//! when there was one.

use peerpods_hypervisor::fuzzing::console;

use super::Target;

/// The target.
pub const TARGET: Target =
    Target { name: "console", check, max_len: 768, memory: 1 << 14, memory_per_byte: 256 };

fn check(data: &[u8]) {
    let end = console(data);
    assert!(!end.chars().any(char::is_control), "{end:?} steers a terminal");
    assert!(end.len() <= 3 * data.len() + 9);
    let text = String::from_utf8_lossy(data);
    let panic = "Kernel panic - not syncing";
    if text.lines().any(|line| line.contains(panic)) {
        assert!(end.contains(panic), "the reason is not told");
    }
    assert_eq!(console(end.as_bytes()), end, "cleaning twice is another thing");
}
