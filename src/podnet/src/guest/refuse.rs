//! What a pod is told at once that it cannot reach: rules in its namespace that answer "permission denied". The worker drops packets to
//! the VM's address and to the services; without these a program would wait for an answer. A container that may change its namespace can remove them, and gains
//! nothing.

use std::net::IpAddr;
use std::path::Path;

use netlink_packet_route::IpProtocol;
use nix::errno::Errno;
use peerpods_podvm::metadata::DNS_PORT;

use crate::kernel::{Address, Rtnl, failed, said};
use crate::netns::Netns;
use crate::tunnel::TunnelError;

/// Between the local table's rule (0) and the main table's (32766).
const DNS_PASSES: u32 = 1000;
const REFUSED: u32 = 1001;

/// One routing rule about one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoutingRule {
    pub(crate) priority: u32,
    pub(crate) destination: IpAddr,
    pub(crate) answer: Answer,
}

/// What is done with packets to the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// They are not sent, and the sender is told.
    Refused,
    /// Those of this transport to this port take the main table's routes.
    Routed(IpProtocol, u16),
}

/// Refuses packets from the namespace `podns` to the VM's addresses on its way to the worker, and to `services` but for DNS. Idempotent.
/// What else the VM has, such as a container engine's bridge, is not on the pod's network: others there may have the same addresses.
///
/// # Errors
/// When there is no way to the worker, the namespace cannot be entered, or the kernel refuses a rule.
pub async fn refuse(podns: &Path, worker: IpAddr, services: &[IpAddr]) -> Result<(), TunnelError> {
    let vm = Rtnl::here()?;
    let underlay = vm.towards(worker).await?.link;
    let own: Vec<Address> = vm.addresses().await?.into_iter().filter(|a| a.link == underlay).collect();
    let pod = Netns::open(podns).await?.connect().await?;
    for rule in rules(&own, services) {
        match pod.add_rule(&rule).await {
            // There already; or a kernel without IPv6, where nobody reaches the address.
            Err(error) if said(&error, &[Errno::EEXIST, Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP]) => {}
            done => done.map_err(failed(format!("refuse {} in {}", rule.destination, podns.display())))?,
        }
    }
    Ok(())
}

fn rules(own: &[Address], services: &[IpAddr]) -> Vec<RoutingRule> {
    let refused = |destination| RoutingRule { priority: REFUSED, destination, answer: Answer::Refused };
    let mut all: Vec<RoutingRule> = own
        .iter()
        .filter(|a| a.global && !a.net.addr().is_loopback())
        .map(|a| refused(a.net.addr()))
        .collect();
    for &destination in services {
        for transport in [IpProtocol::Udp, IpProtocol::Tcp] {
            let answer = Answer::Routed(transport, DNS_PORT);
            all.push(RoutingRule { priority: DNS_PASSES, destination, answer });
        }
        all.push(refused(destination));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(net: &str, global: bool) -> Address {
        Address { link: 2, net: net.parse().unwrap(), global, secondary: false }
    }

    #[test]
    fn the_vms_addresses_are_refused_altogether_and_services_but_for_dns() {
        let own =
            [address("127.0.0.1/8", false), address("10.158.0.7/24", true), address("fe80::1/64", false)];
        let service: IpAddr = "169.254.169.254".parse().unwrap();
        let found: Vec<(IpAddr, Answer)> =
            rules(&own, &[service]).into_iter().map(|r| (r.destination, r.answer)).collect();
        let expected = [
            ("10.158.0.7".parse().unwrap(), Answer::Refused),
            (service, Answer::Routed(IpProtocol::Udp, 53)),
            (service, Answer::Routed(IpProtocol::Tcp, 53)),
            (service, Answer::Refused),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_passes_is_asked_before_what_is_refused() {
        let all = rules(&[], &["169.254.169.254".parse().unwrap()]);
        assert!(all.is_sorted_by_key(|r| r.priority), "{all:?}");
    }
}
