//! The worker node's own address, by which pod VMs reach it.

use ipnet::IpNet;

use crate::kernel::{Address, KernelRoute, Link, Rtnl};
use crate::tunnel::TunnelError;

/// The node's primary address, with the length of its prefix: that of `interface`, or when none is named that of the default route with
/// the lowest metric. An IPv6 address only where there is no IPv4 one: VMs are reached by their first address, which is IPv4 then.
///
/// # Errors
/// When there is no such interface or route, or no address on it.
pub async fn worker_address(interface: Option<&str>) -> Result<IpNet, TunnelError> {
    let node = Rtnl::here()?;
    let (links, addresses, routes) = (node.links().await?, node.addresses().await?, node.routes().await?);
    choose(interface, &links, &addresses, &routes).map_err(|detail| TunnelError::NoNodeAddress { detail })
}

fn choose(
    interface: Option<&str>,
    links: &[Link],
    addresses: &[Address],
    routes: &[KernelRoute],
) -> Result<IpNet, String> {
    let named = match interface {
        Some(name) => {
            Some(links.iter().find(|l| l.name == name).ok_or(format!("there is no interface {name}"))?)
        }
        None => None,
    };
    let mut missing = "there is no default route".to_owned();
    for v4 in [true, false] {
        let of_family = |net: &IpNet| net.addr().is_ipv4() == v4;
        let defaults = routes.iter().filter(|r| r.dst.prefix_len() == 0 && of_family(&r.dst));
        let default = defaults.min_by_key(|r| r.metric).and_then(|r| r.link);
        let by_default = || links.iter().find(|l| Some(l.index) == default);
        let Some(link) = named.or_else(by_default) else { continue };
        // The kernel lists an interface's primary addresses in the order they were given to it.
        let usable = |a: &&Address| a.link == link.index && of_family(&a.net) && a.global && !a.secondary;
        match addresses.iter().find(usable) {
            Some(address) => return Ok(address.net),
            None => missing = format!("interface {} has none", link.name),
        }
    }
    Err(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::LinkKind;
    use netlink_packet_route::route::{RouteProtocol, RouteScope};

    fn link(index: u32, name: &str) -> Link {
        let kind = LinkKind::Ethernet;
        Link {
            index,
            name: name.to_owned(),
            kind,
            up: true,
            mtu: 1500,
            mac: None,
            other_netns: None,
            lower: None,
            controller: None,
        }
    }

    fn address(link: u32, net: &str) -> Address {
        Address { link, net: net.parse().unwrap(), global: true, secondary: false }
    }

    fn default_by(link: u32, metric: u32) -> KernelRoute {
        KernelRoute {
            link: Some(link),
            dst: "0.0.0.0/0".parse().unwrap(),
            gw: None,
            protocol: RouteProtocol::Dhcp,
            scope: RouteScope::Universe,
            onlink: false,
            metric,
            src: None,
            mtu: 0,
        }
    }

    #[test]
    fn the_default_route_with_the_lowest_metric_decides_whatever_the_names_and_the_order() {
        let links = [link(2, "eth0"), link(3, "ens5")];
        let addresses = [address(2, "10.0.0.2/24"), address(3, "192.168.0.9/16")];
        let routes = [default_by(2, 200), default_by(3, 100)];
        assert_eq!(choose(None, &links, &addresses, &routes), Ok("192.168.0.9/16".parse().unwrap()));
        assert_eq!(choose(Some("eth0"), &links, &addresses, &routes), Ok("10.0.0.2/24".parse().unwrap()));
    }

    #[test]
    fn secondary_local_and_ipv6_addresses_are_passed_over() {
        let mut addresses = [
            address(2, "fd00::2/64"),
            address(2, "169.254.0.2/16"),
            address(2, "10.0.0.3/24"),
            address(2, "10.0.0.2/24"),
        ];
        addresses[1].global = false;
        addresses[2].secondary = true;
        assert_eq!(
            choose(Some("eth0"), &[link(2, "eth0")], &addresses, &[]),
            Ok("10.0.0.2/24".parse().unwrap())
        );
    }

    #[test]
    fn an_ipv6_address_is_taken_where_there_is_no_other() {
        let links = [link(2, "eth0"), link(3, "eth1")];
        let six = KernelRoute { dst: "::/0".parse().unwrap(), ..default_by(2, 1024) };
        let addresses = [address(2, "fd00::2/64"), address(3, "10.0.0.2/24")];
        let only = Ok("fd00::2/64".parse().unwrap());
        assert_eq!(choose(None, &links, &addresses, std::slice::from_ref(&six)), only);
        assert_eq!(choose(Some("eth0"), &links, &addresses, &[]), only);
        let both = [six, default_by(3, 100)];
        assert_eq!(choose(None, &links, &addresses, &both), Ok("10.0.0.2/24".parse().unwrap()));
    }

    #[test]
    fn what_is_missing_is_said() {
        assert!(choose(None, &[link(2, "eth0")], &[], &[]).unwrap_err().contains("default route"));
        assert!(choose(Some("nix"), &[link(2, "eth0")], &[], &[]).unwrap_err().contains("nix"));
        assert!(choose(Some("eth0"), &[link(2, "eth0")], &[], &[]).unwrap_err().contains("eth0"));
    }
}
