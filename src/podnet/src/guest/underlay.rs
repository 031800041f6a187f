//! The VM's own network, set from what the kernel command line says.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use peerpods_podvm::network::{Route, RouteProtocol, RouteScope};
use peerpods_podvm::underlay::Underlay;

use crate::kernel::{Link, LinkKind, Rtnl, failed};
use crate::netns::Netns;
use crate::tunnel::TunnelError;

/// Gives the calling thread's namespace (the VM's own) its network: the loopback device up, and `interface`, or the first Ethernet
/// interface when none is named, up with its address, MTU and default route. Idempotent. Answers with the interface's name.
///
/// # Errors
/// When there is no such interface, or the kernel refuses a step.
pub async fn set_underlay(underlay: &Underlay, interface: Option<&str>) -> Result<String, TunnelError> {
    let Underlay { address, gateway, mtu } = *underlay;
    let vm = Rtnl::here()?;
    let links = vm.links().await?;
    let Some(link) = choose(&links, interface) else {
        let path = Netns::own()?.path().to_owned();
        let detail = match interface {
            Some(name) => format!("there is no {name} for the VM's own address"),
            None => "there is no Ethernet interface for the VM's own address".to_owned(),
        };
        return Err(TunnelError::NoInterface { path, detail });
    };
    let name = &link.name;
    vm.loopback_up().await.map_err(failed("set lo up"))?;
    if link.mtu != mtu {
        vm.set_mtu(link.index, mtu).await.map_err(failed(format!("set the MTU of {name} to {mtu}")))?;
    }
    vm.add_address(link.index, address).await.map_err(failed(format!("add {address} to {name}")))?;
    announce_when_up(name);
    vm.set_up(link.index).await.map_err(failed(format!("set {name} up")))?;
    let route = Route {
        dst: match gateway {
            IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
            IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
        },
        gw: Some(gateway),
        dev: name.clone(),
        protocol: Some(RouteProtocol::Boot),
        scope: RouteScope::Universe,
        onlink: !address.contains(&gateway),
        metric: 0,
        src: None,
        mtu: 0,
    };
    let step = format!("add the default route via {gateway} by {name}");
    vm.replace_route(link.index, &route).await.map_err(failed(step))?;
    Ok(link.name.clone())
}

/// Has the kernel tell the neighbours our address as soon as the interface is up: a worker that has asked for it in vain asks again only
/// a second later. Without it the VM is merely found later.
fn announce_when_up(interface: &str) {
    let switch = format!("/proc/sys/net/ipv4/conf/{interface}/arp_notify");
    if let Err(error) = std::fs::write(&switch, "1") {
        tracing::debug!(switch, %error, "the VM's address is not announced");
    }
}

/// Hardware (what a hypervisor shows as such) before other devices that carry Ethernet, each in the order the kernel found them.
fn choose<'a>(links: &'a [Link], interface: Option<&str>) -> Option<&'a Link> {
    if let Some(name) = interface {
        return links.iter().find(|l| l.name == name);
    }
    let rank = |l: &&Link| match l.kind {
        LinkKind::Ethernet => Some((0, l.index)),
        LinkKind::VirtualEthernet => Some((1, l.index)),
        LinkKind::Loopback | LinkKind::Vxlan(_) | LinkKind::Other => None,
    };
    links.iter().filter(|l| rank(l).is_some()).min_by_key(rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: LinkKind) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind,
            up: false,
            mtu: 1500,
            mac: None,
            other_netns: None,
            lower: None,
            controller: None,
        }
    }

    #[test]
    fn hardware_comes_before_virtual_devices_whatever_the_order() {
        let links = [
            link(1, "lo", LinkKind::Loopback),
            link(2, "docker0", LinkKind::VirtualEthernet),
            link(4, "eth1", LinkKind::Ethernet),
            link(3, "eth0", LinkKind::Ethernet),
        ];
        assert_eq!(choose(&links, None).unwrap().name, "eth0");
        assert_eq!(choose(&links[..2], None).unwrap().name, "docker0");
        assert_eq!(choose(&links, Some("eth1")).unwrap().name, "eth1");
        assert_eq!(choose(&links[..1], None), None);
        assert_eq!(choose(&links, Some("eth9")), None);
    }
}
