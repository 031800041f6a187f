//! Records of the resumable session on the wire.
//!
//! What is read is written again byte by byte. A record is not seen before it is whole, whatever the pieces, and a fault is found by
//! the head alone: nothing is collected for what is refused. No record is longer than 16 KiB and its head.

use peerpods_agentlink::fuzzing::record;

use super::Target;

/// The target.
pub const TARGET: Target =
    Target { name: "records", check, max_len: 16_400, memory: 1 << 12, memory_per_byte: 8 };

fn check(data: &[u8]) {
    let mut rest = data;
    loop {
        match record(rest) {
            Ok(None) => return assert!(rest.len() < 3 + 8 + 16 * 1024, "a record of no end"),
            Ok(Some((again, length))) => {
                let (this, after) = rest.split_at(length);
                assert!(again == this, "written otherwise than read");
                for cut in [0, 1, 2, 3, length / 2, length - 1] {
                    if let Some(cut) = this.get(..cut.min(length - 1)) {
                        assert_eq!(record(cut), Ok(None), "seen before it was whole");
                    }
                }
                rest = after;
            }
            Err(fault) => {
                let head = rest.get(..3).unwrap();
                return assert_eq!(record(head), Err(fault), "a fault beyond the head");
            }
        }
    }
}
