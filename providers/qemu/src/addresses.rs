//! Choosing a VM's address. Pure: the caller holds the lock and knows which are taken.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// The bridge's address: the subnet's first.
pub(crate) fn gateway(subnet: Ipv4Net) -> Ipv4Addr {
    nth(subnet, 0)
}

/// How many VMs the subnet has room for.
pub(crate) fn room(subnet: Ipv4Net) -> u64 {
    // Network and broadcast address and the bridge's are not for VMs.
    (1_u64 << (32 - u32::from(subnet.prefix_len()))).saturating_sub(3)
}

/// A free address of the subnet, the search beginning at a place given by `seed` so that one just given back is not used again at
/// once. `None` when all are taken.
pub(crate) fn choose(subnet: Ipv4Net, taken: &BTreeSet<Ipv4Addr>, seed: u64) -> Option<Ipv4Addr> {
    let room = room(subnet);
    let start = seed.checked_rem(room)?;
    (0..room).map(|step| nth(subnet, 1 + (start + step) % room)).find(|address| !taken.contains(address))
}

/// The subnet's n-th address that a machine may have, from 0.
fn nth(subnet: Ipv4Net, n: u64) -> Ipv4Addr {
    let offset = u32::try_from(n + 1).unwrap_or(u32::MAX);
    Ipv4Addr::from_bits(subnet.network().to_bits().saturating_add(offset))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_small_subnet_is_used_up_to_the_last_address_and_then_full() {
        let subnet: Ipv4Net = "10.1.2.8/29".parse().unwrap();
        let mut taken = BTreeSet::new();
        while let Some(address) = choose(subnet, &taken, 12_345) {
            assert!(taken.insert(address));
        }
        let want: BTreeSet<Ipv4Addr> = (10..=14).map(|n| Ipv4Addr::new(10, 1, 2, n)).collect();
        assert_eq!((gateway(subnet), taken), ("10.1.2.9".parse().unwrap(), want));
    }

    proptest! {
        #[test]
        fn whatever_is_taken_a_chosen_address_is_free_inside_and_not_the_bridges(
            network in any::<u32>(), length in 8_u8..=30, seed in any::<u64>(),
            taken in prop::collection::btree_set(0_u64..64, 0..64),
        ) {
            let subnet = Ipv4Net::new(network.into(), length).unwrap().trunc();
            let taken: BTreeSet<Ipv4Addr> = taken.into_iter().map(|n| nth(subnet, 1 + n)).collect();
            let free = room(subnet) > taken.iter().filter(|a| subnet.contains(*a)).count() as u64
                || taken.len() < usize::try_from(room(subnet)).unwrap();
            match choose(subnet, &taken, seed) {
                Some(address) => {
                    prop_assert!(subnet.contains(&address) && !taken.contains(&address));
                    prop_assert!(address != subnet.network() && address != subnet.broadcast());
                    prop_assert!(address != gateway(subnet));
                }
                None => prop_assert!(!free || room(subnet) == 0),
            }
        }

        #[test]
        fn any_order_of_births_and_deaths_never_gives_one_address_twice(
            steps in prop::collection::vec((any::<bool>(), any::<u64>()), 1..80),
        ) {
            let subnet: Ipv4Net = "10.0.0.0/28".parse().unwrap();
            let mut live: Vec<Ipv4Addr> = Vec::new();
            for (birth, seed) in steps {
                let taken: BTreeSet<Ipv4Addr> = live.iter().copied().collect();
                prop_assert_eq!(taken.len(), live.len());
                match choose(subnet, &taken, seed) {
                    Some(address) if birth || live.is_empty() => live.push(address),
                    _ if live.is_empty() => {}
                    _ => drop(live.swap_remove(usize::try_from(seed % 997).unwrap() % live.len())),
                }
            }
        }
    }
}
