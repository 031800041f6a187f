//! The cloud's services for the *VM*, at addresses that every VM of a cloud can reach: they hand out its user data (with the keys of the
//! agent link), its credentials and its goal state. A pod is not the VM, so it is kept from them unless its cluster's owner allows it.
//! Pure data.
//!
//! Blocked: the instance metadata services. Not blocked, because they serve pods or serve names and time: 169.254.169.253 and
//! fd00:ec2::253 (Amazon's resolver), 169.254.169.123 (its clock), 169.254.170.23 and fd00:ec2::23 (EKS Pod Identity, which gives a pod
//! its *own* credentials), 169.254.170.2 (answers only tasks of ECS, which know a path), 169.254.20.10 (node-local DNS). A blocked
//! address still answers on the DNS port: Azure's and Google's resolver has the address of their metadata service, and pods with
//! `dnsPolicy: Default` are told to use it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether pods reach the services of [`SERVICES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetadataAccess {
    /// They do not.
    #[default]
    Blocked,
    /// They do, as far as the worker node does: what a pod reaches are the services of its *worker*.
    Allowed,
}

/// The metadata services: of Amazon, Azure, Google and most others; Amazon's over IPv6; Azure's WireServer.
pub const SERVICES: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// The port on which a blocked address answers all the same, over UDP and TCP.
pub const DNS_PORT: u16 = 53;

impl MetadataAccess {
    /// The addresses a pod is kept from.
    #[must_use]
    pub fn blocked(self) -> &'static [IpAddr] {
        match self {
            Self::Blocked => &SERVICES,
            Self::Allowed => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_clocks_and_what_serves_pods_are_not_blocked() {
        let open = [
            "169.254.169.253",
            "169.254.169.123",
            "169.254.170.2",
            "169.254.170.23",
            "169.254.20.10",
            "fd00:ec2::23",
        ];
        for address in open {
            assert!(!SERVICES.contains(&address.parse().unwrap()), "{address}");
        }
        for address in ["169.254.169.254", "fd00:ec2::254", "168.63.129.16"] {
            assert!(SERVICES.contains(&address.parse().unwrap()), "{address}");
        }
        assert_eq!(MetadataAccess::default().blocked(), SERVICES);
        assert!(MetadataAccess::Allowed.blocked().is_empty());
    }
}
