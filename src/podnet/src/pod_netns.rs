//! A pod's network namespace as a CNI plugin makes it, for use without one: `peerpods sandbox run`, the demo and tests.
//!
//! A named namespace under [`DIRECTORY`] (so `ip netns` sees it) with `eth0`, whose other half is on the node. The node reaches the
//! pod by a host route; the pod reaches the node, and nothing beyond it: no forwarding, no address translation, no firewall rule.

use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::link::{InfoData, InfoVeth, LinkMessage};
use nix::errno::Errno;
use peerpods_podvm::network::{Route, RouteProtocol, RouteScope};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use sha2::{Digest, Sha256};

use crate::kernel::{Rtnl, failed};
use crate::netns::{self, Netns};
use crate::tunnel::TunnelError;

/// Where named namespaces are, as for `ip netns`.
pub const DIRECTORY: &str = "/run/netns";
/// The pod's interface, inside.
const INTERFACE: &str = "eth0";
/// A Linux interface name has at most 15 bytes.
const NAME_MAX: usize = 15;

/// What a pod's namespace is to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodNetnsSpec {
    /// The node's end of the veth pair, the pod's gateway. Pods may share it; no route is made of its prefix.
    pub node_address: Ipv4Net,
    /// The pod's address and the length of its prefix; /32 makes a point-to-point pod.
    pub pod_address: Ipv4Net,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
}

/// A pod's namespace that [`PodNetns::create`] made. Dropping it removes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNetns {
    /// The name, for [`remove`].
    pub name: String,
    /// What a container runtime would hand to the shim.
    pub path: PathBuf,
    /// The interface inside.
    pub interface: String,
    /// The other half's name, on the node.
    pub node_interface: String,
}

impl PodNetns {
    /// Makes the namespace `name`, with its veth pair, addresses and routes. Removes what it made when a step fails; when the call is
    /// dropped half way, [`remove`] does that.
    ///
    /// # Errors
    /// When the name cannot be used or is taken, or the kernel refuses a step.
    pub async fn create(name: &str, spec: PodNetnsSpec) -> Result<Self, TunnelError> {
        let pod = Self {
            name: name.to_owned(),
            path: path_of(name)?,
            interface: INTERFACE.to_owned(),
            node_interface: node_interface(name),
        };
        if !netns::make(&pod.path).await? {
            let step = format!("make the network namespace {}", pod.path.display());
            return Err(TunnelError::Kernel { step, source: Errno::EEXIST.into() });
        }
        if let Err(error) = pod.furnish(spec).await {
            if let Err(left) = remove(name).await {
                tracing::warn!(name, error = %left, "a pod's network namespace could not be removed");
            }
            return Err(error);
        }
        Ok(pod)
    }

    async fn furnish(&self, spec: PodNetnsSpec) -> Result<(), TunnelError> {
        let PodNetnsSpec { node_address, pod_address, mtu } = spec;
        let name = &self.name;
        let netns = Netns::open(&self.path).await?;
        let (node, pod) = (Rtnl::here()?, netns.connect().await?);
        let pair = veth(&self.node_interface, &netns, mtu);
        node.add_link(pair)
            .await
            .map_err(failed(format!("make {} and its pair in {name}", self.node_interface)))?;
        let outside = index(&node, &self.node_interface).await?;
        let inside = index(&pod, INTERFACE).await?;

        pod.loopback_up().await.map_err(failed(format!("set lo in {name} up")))?;
        pod.add_address(inside, IpNet::V4(pod_address))
            .await
            .map_err(failed(format!("give {INTERFACE} in {name} the address {pod_address}")))?;
        pod.set_up(inside).await.map_err(failed(format!("set {INTERFACE} in {name} up")))?;
        let step = || format!("give {} the address {node_address}", self.node_interface);
        node.add_address_alone(outside, IpNet::V4(node_address)).await.map_err(failed(step()))?;
        node.set_up(outside).await.map_err(failed(format!("set {} up", self.node_interface)))?;

        let to_pod = Route { src: Some(node_address.addr().into()), ..on_link(pod_address.addr().into()) };
        node.add_route(outside, &to_pod)
            .await
            .map_err(failed(format!("route {} to {}", to_pod.dst, self.node_interface)))?;
        for route in pod_routes(node_address, pod_address) {
            let step = format!("add the route {} in {name}", route.dst);
            pod.add_route(inside, &route).await.map_err(failed(step))?;
        }
        Ok(())
    }
}

/// Removes the namespace `name` with its veth pair. Ok when there is none.
///
/// # Errors
/// When the name cannot be used, or something may be left.
pub async fn remove(name: &str) -> Result<(), TunnelError> {
    let path = path_of(name)?;
    let node = Rtnl::here()?;
    // At once, and not when the kernel gets round to a namespace that may be kept alive by somebody's open file.
    if let Some(link) = node.link(&node_interface(name)).await? {
        node.remove_link(link.index).await.map_err(failed(format!("remove {}", link.name)))?;
    }
    netns::remove(&path).await
}

/// The path of a namespace of that name.
///
/// # Errors
/// When the name would not name a file in [`DIRECTORY`].
pub fn path_of(name: &str) -> Result<PathBuf, TunnelError> {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let good = (1..=64).contains(&name.len()) && name.chars().all(usual) && name != "." && name != "..";
    if good {
        Ok(Path::new(DIRECTORY).join(name))
    } else {
        Err(TunnelError::BadName { name: name.chars().take(80).collect() })
    }
}

/// The same for the same name, for ever: `remove` has nothing else to find it by. Long names are told apart by a hash.
fn node_interface(name: &str) -> String {
    let plain = format!("pp-{name}");
    if plain.len() <= NAME_MAX {
        return plain;
    }
    let hash = hex::encode(Sha256::digest(name.as_bytes()));
    format!("pp-{}", hash.get(..NAME_MAX - 3).unwrap_or_default())
}

fn veth(node_interface: &str, netns: &Netns, mtu: u32) -> LinkMessage {
    let inside =
        LinkMessageBuilder::<LinkUnspec>::new().name(INTERFACE).mtu(mtu).setns_by_fd(netns.raw_fd()).build();
    LinkMessageBuilder::<LinkVeth>::new(node_interface, INTERFACE)
        .mtu(mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(inside)))
        .build()
}

async fn index(place: &Rtnl, name: &str) -> Result<u32, TunnelError> {
    let found = place.link(name).await?.map(|l| l.index);
    found.ok_or_else(|| TunnelError::Kernel { step: format!("find {name}"), source: Errno::ENODEV.into() })
}

fn on_link(address: std::net::IpAddr) -> Route {
    Route {
        dst: IpNet::from(address),
        gw: None,
        dev: String::new(),
        protocol: Some(RouteProtocol::Boot),
        scope: RouteScope::Link,
        onlink: false,
        metric: 0,
        src: None,
        mtu: 0,
    }
}

/// The default route, preceded by one to the gateway where the pod's own prefix does not hold it.
fn pod_routes(node: Ipv4Net, pod: Ipv4Net) -> Vec<Route> {
    let gateway = std::net::IpAddr::V4(node.addr());
    let default = Route {
        dst: IpNet::V4(Ipv4Net::default()),
        gw: Some(gateway),
        scope: RouteScope::Universe,
        ..on_link(gateway)
    };
    if pod.contains(&node.addr()) { vec![default] } else { vec![on_link(gateway), default] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_interface_name_fits_and_tells_long_names_apart() {
        assert_eq!(node_interface("demo"), "pp-demo");
        assert_eq!(node_interface("exactly12byt"), "pp-exactly12byt");
        let long = [node_interface("a-rather-long-name-1"), node_interface("a-rather-long-name-2")];
        assert!(long.iter().all(|n| n.len() == NAME_MAX), "{long:?}");
        assert_ne!(long[0], long[1]);
    }

    #[test]
    fn a_name_that_leaves_the_directory_is_refused() {
        for bad in ["", ".", "..", "a/b", "a b", "é"] {
            assert!(matches!(path_of(bad), Err(TunnelError::BadName { .. })), "{bad:?}");
        }
        assert!(path_of(&"x".repeat(65)).is_err());
        assert_eq!(path_of("demo").unwrap(), Path::new("/run/netns/demo"));
    }
}
