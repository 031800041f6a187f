//! Certificates: the one a guest is told to admit, and the one that a client shows.
//!
//! Whatever bytes come in the place of a certificate they are refused or read, and nothing that is not byte by byte the admitted certificate, or signed by
//! it, is admitted. The first byte says which of the two is given, the other is a good one.

use std::sync::OnceLock;

use peerpods_agentlink::fuzzing::admits;

use super::Target;
use crate::input::Input;

/// The target.
pub const TARGET: Target =
    Target { name: "certificates", check, max_len: 640, memory: 1 << 17, memory_per_byte: 256 };

/// A self-signed client certificate as a stock daemon makes it, and an authority; both valid in 2026.
const STOCK: &[u8] = include_bytes!("../../fixtures/stock-client.der");
const AUTHORITY: &[u8] = include_bytes!("../../fixtures/authority.der");
/// What the authority signed. The keys of all three are gone.
const CLIENT: &[u8] = include_bytes!("../../fixtures/client.der");
/// 2027-06-01.
const NOW: u64 = 1_811_808_000;

fn check(data: &[u8]) {
    static GOOD: OnceLock<()> = OnceLock::new();
    GOOD.get_or_init(|| {
        assert!(admits(STOCK, STOCK, NOW).unwrap() && admits(AUTHORITY, CLIENT, NOW).unwrap());
        assert!(!admits(AUTHORITY, STOCK, NOW).unwrap() && !admits(CLIENT, STOCK, NOW).unwrap());
    });
    let mut input = Input(data);
    let which = input.byte();
    let bytes = input.rest();
    match which % 4 {
        0 => assert!(!admits(AUTHORITY, bytes, NOW).unwrap() || bytes == CLIENT, "a stranger is admitted"),
        1 => assert!(!admits(STOCK, bytes, NOW).unwrap() || bytes == STOCK, "a stranger is admitted"),
        2 => {
            let _ = admits(bytes, STOCK, NOW).map(|admitted| assert!(!admitted || bytes == STOCK));
        }
        // Its own only witness: admitted when it is no authority and its time is now.
        _ => drop(admits(bytes, bytes, NOW)),
    }
}
