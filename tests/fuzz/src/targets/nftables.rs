//! What nf_tables answers over netlink about our table: its rules, and what is in its sets.
//!
//! Input: five pieces, each with its length before it (two bytes; 65 535: there is no such set): the rules' answer, then one for each set.
//! Whatever is found, the memory follows its length, and a change of who is guarded ends with what was wanted: the tunnel has the one
//! peer it was given, or is gone, the others are as they were; every message would be taken by a kernel that holds what was found; and
//! done again, it changes nothing.

use std::net::IpAddr;

use peerpods_podnet::fuzzing::{Guarding, Table};

use super::Target;
use crate::input::Input;

/// The target.
pub const TARGET: Target =
    Target { name: "nftables", check, max_len: 8192, memory: 1 << 18, memory_per_byte: 512 };

const VNI: u32 = 555_000;
const PORT: u16 = 9000;

fn table(data: &[u8]) -> Table {
    let mut input = Input(data);
    let mut answer = || match input.short() {
        u16::MAX => None,
        length => Some(input.bytes(usize::from(length))),
    };
    Table::of(answer().unwrap_or_default(), [answer(), answer(), answer(), answer()])
}

fn check(data: &[u8]) {
    let found = table(data);
    assert!(found.size() <= data.len() / 4, "{} rules and elements in {} bytes", found.size(), data.len());
    // One change an input, whichever its bytes choose: the others come with the next.
    match data.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) % 4 {
        0 => admitted(&found, "10.158.0.2"),
        1 => admitted(&found, "fd00::2"),
        2 => {
            let without = settled(&found, Guarding::Withdraw { vni: VNI, port: PORT });
            assert_eq!(without.tunnels(), others(&found));
        }
        _ => assert_eq!(settled(&found, Guarding::Collect).tunnels(), found.tunnels()),
    }
}

fn admitted(found: &Table, peer: &str) {
    let peer: IpAddr = peer.parse().unwrap();
    let with = settled(found, Guarding::Admit { vni: VNI, port: PORT, peer });
    assert_eq!(of_tunnel(&with), [peer]);
    assert_eq!(others(&with), others(found));
}

/// The table after a change, which done again is none.
fn settled(found: &Table, guarding: Guarding) -> Table {
    let (after, messages) = found.after(guarding);
    assert!(messages <= 32 + 2 * found.size(), "{messages} messages");
    let (again, messages) = after.after(guarding);
    assert_eq!((messages, &again), (0, &after), "{guarding:?} twice");
    after
}

fn of_tunnel(table: &Table) -> Vec<IpAddr> {
    let ours = table.tunnels().into_iter().filter(|(port, vni, _)| (*port, *vni) == (PORT, VNI));
    ours.map(|(_, _, peer)| peer).collect()
}

fn others(table: &Table) -> Vec<(u16, u32, IpAddr)> {
    table.tunnels().into_iter().filter(|(port, vni, _)| (*port, *vni) != (PORT, VNI)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_table_as_a_kernel_listed_it_needs_no_change() {
        let whole = table(include_bytes!("../../corpus/nftables/whole"));
        assert!(!whole.tunnels().is_empty());
        assert_eq!(whole.after(Guarding::Collect), (whole.clone(), 0));
    }
}
