//! Whether the VMs' subnet gets along with the networks this host is in. Pure.

use ipnet::{IpNet, Ipv4Net};

/// An IPv4 network this host already uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InUse {
    pub(crate) network: Ipv4Net,
    /// The device's name, if it is known.
    pub(crate) device: Option<String>,
}

/// What speaks against a subnet on this host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Clashes {
    /// It cannot work.
    pub(crate) faults: Vec<String>,
    /// It works and takes something away.
    pub(crate) remarks: Vec<String>,
}

/// Whether `subnet` on `bridge` gets along with the networks in use.
pub(crate) fn clashes(subnet: Ipv4Net, bridge: &str, addresses: &[InUse], routes: &[InUse]) -> Clashes {
    let others = |used: &&InUse| used.device.as_deref() != Some(bridge) && overlap(used.network, subnet);
    let mut found = Clashes::default();
    for used in addresses.iter().filter(others) {
        let at = at(used);
        found.faults.push(format!(
            "qemu.subnet {subnet} overlaps this host's address {}{at}: choose another",
            used.network
        ));
    }
    for used in routes.iter().filter(others) {
        let (at, network) = (at(used), used.network.trunc());
        if addresses.iter().any(|a| a.network.trunc() == network && a.device == used.device) {
            continue;
        }
        if network.prefix_len() >= subnet.prefix_len() {
            found
                .faults
                .push(format!("qemu.subnet {subnet} overlaps the route {network}{at}: choose another"));
        } else {
            found.remarks.push(format!("qemu.subnet {subnet} hides a part of the route {network}{at}"));
        }
    }
    found
}

fn at(used: &InUse) -> String {
    used.device.as_ref().map(|name| format!(" of {name}")).unwrap_or_default()
}

fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    let (one, other) = (IpNet::V4(one.trunc()), IpNet::V4(other.trunc()));
    one.contains(&other) || other.contains(&one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(network: &str, device: &str) -> InUse {
        InUse { network: network.parse().unwrap(), device: Some(device.to_owned()) }
    }

    #[test]
    fn a_subnet_clashes_with_addresses_and_narrow_routes_and_hides_wide_ones() {
        let subnet = "10.158.0.0/24".parse().unwrap();
        let none =
            clashes(subnet, "ppbr0", &[used("10.158.0.1/24", "ppbr0"), used("10.1.0.1/24", "eth0")], &[]);
        assert_eq!(none, Clashes::default());
        let lan = [used("10.158.3.4/16", "eth0")];
        let clash = clashes(subnet, "ppbr0", &lan, &[used("10.158.0.0/16", "eth0")]);
        assert_eq!((clash.faults.len(), clash.remarks.len()), (1, 0), "{clash:?}");
        let clash =
            clashes(subnet, "ppbr0", &[], &[used("10.158.0.128/25", "tun0"), used("10.0.0.0/8", "eth0")]);
        assert_eq!((clash.faults.len(), clash.remarks.len()), (1, 1), "{clash:?}");
    }
}
