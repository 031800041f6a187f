//! The pod network namespace of a sandbox that brings none: a free subnet is chosen, `podnet` makes the namespace.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use peerpods_podnet::pod_netns::{self, PodNetns, PodNetnsSpec};
use peerpods_podvm::{SandboxId, naming};

use super::error::SandboxError;
use super::record::OwnedNetns;

/// MTU of the pod's interface in bytes, as a CNI plugin on Ethernet would set it.
const MTU: u32 = 1500;

/// Subnets to choose from: 10.88.0.0/24, 10.88.1.0/24, … Podman's habit, away from what clusters use.
fn candidates() -> impl Iterator<Item = Ipv4Net> {
    (0..=255).filter_map(|third| Ipv4Net::new(Ipv4Addr::new(10, 88, third, 0), 24).ok())
}

/// The first subnet that overlaps nothing taken. Pure.
#[must_use]
pub fn choose(taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    candidates().find(|candidate| !taken.iter().any(|other| overlap(candidate, other)))
}

/// Whether two subnets share an address.
#[must_use]
pub fn overlap(one: &Ipv4Net, other: &Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// The subnets this host has routes to, other than by its default route.
///
/// # Errors
/// When the kernel's table cannot be read.
pub fn host_networks() -> std::io::Result<Vec<Ipv4Net>> {
    Ok(routes(&std::fs::read_to_string("/proc/net/route")?).into_iter().map(|(_, network)| network).collect())
}

/// Reads `/proc/net/route`: interface and subnet per line, the default route left out. Pure.
#[must_use]
pub fn routes(table: &str) -> Vec<(String, Ipv4Net)> {
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (interface, address, mask) = (fields.first()?, fields.get(1)?, fields.get(7)?);
        let network = Ipv4Net::with_netmask(hexadecimal(address)?, hexadecimal(mask)?).ok()?;
        (network.prefix_len() > 0).then(|| ((*interface).to_owned(), network))
    };
    table.lines().skip(1).filter_map(route).collect()
}

/// An address as that table writes it: eight hexadecimal digits in the order of the machine's memory.
fn hexadecimal(digits: &str) -> Option<Ipv4Addr> {
    u32::from_str_radix(digits, 16).ok().map(|number| Ipv4Addr::from(number.to_ne_bytes()))
}

/// The longest name `podnet` takes.
const NAME_MAX: usize = 64;

/// The name of a sandbox's own namespace below `/run/netns`: readable where the id leaves room, else by the id's hash.
#[must_use]
pub fn name(id: &SandboxId) -> String {
    let readable = format!("peerpods-{id}");
    if readable.len() <= NAME_MAX { readable } else { format!("peerpods-{}", naming::tap_name(id)) }
}

/// What to make: the subnet asked for, or the first free one.
///
/// # Errors
/// When none is free, or the one asked for is too small.
pub fn plan(id: &SandboxId, wanted: Option<Ipv4Net>, taken: &[Ipv4Net]) -> Result<OwnedNetns, SandboxError> {
    let refuse = |reason: String| SandboxError::Addresses { id: id.clone(), reason };
    let network = match wanted {
        Some(network) if network.prefix_len() > 30 => {
            return Err(refuse(format!("{network} has no room for two ends; give a /30 or larger")));
        }
        Some(network) => match taken.iter().find(|other| overlap(&network, other)) {
            Some(other) => {
                return Err(refuse(format!("{network} overlaps {other}, which this host already uses")));
            }
            None => network.trunc(),
        },
        None => choose(taken).ok_or_else(|| {
            refuse("all of 10.88.0.0/16 is in use; name a subnet with --pod-network".to_owned())
        })?,
    };
    Ok(OwnedNetns { name: name(id), network })
}

/// Makes the namespace; answers its path.
///
/// # Errors
/// When the kernel refuses; `remove` cleans up what was made.
pub async fn make(id: &SandboxId, netns: &OwnedNetns) -> Result<std::path::PathBuf, SandboxError> {
    let failed =
        |source| SandboxError::Netns { verb: "make", name: netns.name.clone(), id: id.clone(), source };
    let mut hosts = netns.network.hosts();
    let (Some(node), Some(pod)) = (hosts.next(), hosts.next()) else {
        let reason = format!("{} has no two hosts", netns.network);
        return Err(SandboxError::Addresses { id: id.clone(), reason });
    };
    let within = |host| Ipv4Net::new(host, netns.network.prefix_len()).map_err(|error| failed(error.into()));
    let spec = PodNetnsSpec { node_address: within(node)?, pod_address: within(pod)?, mtu: MTU };
    let made = PodNetns::create(&netns.name, spec).await.map_err(|error| failed(error.into()))?;
    Ok(made.path)
}

/// Removes the namespace. Ok when it is gone.
///
/// # Errors
/// When something may be left.
pub async fn remove(id: &SandboxId, netns: &OwnedNetns) -> Result<(), SandboxError> {
    pod_netns::remove(&netns.name).await.map_err(|error| SandboxError::Netns {
        verb: "remove",
        name: netns.name.clone(),
        id: id.clone(),
        source: error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<Ipv4Net> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_first_subnet_that_overlaps_nothing_is_chosen() {
        assert_eq!(choose(&[]), Some("10.88.0.0/24".parse().unwrap()));
        let taken = nets(&["10.88.0.0/24", "10.88.1.128/25", "192.168.0.0/16"]);
        assert_eq!(choose(&taken), Some("10.88.2.0/24".parse().unwrap()));
        assert_eq!(choose(&nets(&["10.0.0.0/8"])), None);
    }

    #[test]
    fn a_subnet_asked_for_must_be_free_and_large_enough() {
        let id = "demo".parse().unwrap();
        let wanted = |text: &str| Some(text.parse().unwrap());
        assert_eq!(plan(&id, wanted("10.9.0.5/30"), &[]).unwrap().network, "10.9.0.4/30".parse().unwrap());
        assert!(plan(&id, wanted("10.9.0.0/31"), &[]).is_err());
        assert!(plan(&id, wanted("10.9.0.0/24"), &nets(&["10.9.0.0/16"])).is_err());
        assert_eq!(plan(&id, None, &[]).unwrap().name, "peerpods-demo");
        assert!(name(&"f".repeat(64).parse().unwrap()).len() <= NAME_MAX);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_kernels_route_table_is_read_without_its_default_route() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
            eth0\t0000A8C0\t00000000\t0001\t0\t0\t100\t0000FFFF\t0\t0\t0\n\
            ppbr0\t00009E0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let expected = [("eth0", "192.168.0.0/16"), ("ppbr0", "10.158.0.0/24")];
        let expected: Vec<(String, Ipv4Net)> =
            expected.iter().map(|(name, net)| ((*name).to_owned(), net.parse().unwrap())).collect();
        assert_eq!(routes(table), expected);
    }
}
