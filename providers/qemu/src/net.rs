//! The bridge VMs are connected to and their tap devices, over netlink.
//!
//! A bridge is ours when its Ethernet address is the one made of its IPv4 address: that is set in the very call that makes it, so
//! there is no moment in which a bridge of ours cannot be told from a stranger's.

use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{InfoBridgePort, InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use nix::libc;
use rtnetlink::{Error, Handle, LinkBridge, LinkBridgePort, LinkUnspec, RouteMessageBuilder};

use crate::addresses::gateway;
use crate::failure::Failure;
use crate::places::mac_of;
use crate::subnet::InUse;
use crate::tap;

/// A netlink connection in the network namespace of whoever opened it.
pub(crate) struct Network(Handle);

impl Network {
    pub(crate) fn open() -> Result<Self, Failure> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(Failure::link("open", "netlink"))?;
        // Ends when the last handle is dropped.
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Makes the bridge with the subnet's first address, or completes the one that is there. Answers its index.
    pub(crate) async fn ensure_bridge(&self, name: &str, subnet: Ipv4Net) -> Result<u32, Failure> {
        let address = gateway(subnet);
        let index = match self.link(name).await? {
            Some(link) if is_ours(&link, address) => link.header.index,
            Some(_) => return Err(Failure::ForeignBridge { bridge: name.to_owned(), address }),
            None => self.make_bridge(name, address).await?,
        };
        let add = self.0.address().add(index, IpAddr::V4(address), subnet.prefix_len()).replace();
        add.execute().await.map_err(Failure::link("set the address of", name))?;
        let up = LinkUnspec::new_with_index(index).up().build();
        self.0.link().change(up).execute().await.map_err(Failure::link("switch on", name))?;
        Ok(index)
    }

    async fn make_bridge(&self, name: &str, address: Ipv4Addr) -> Result<u32, Failure> {
        let message = LinkBridge::new(name).address(mac_of(address).0.to_vec()).build();
        match self.0.link().add(message).execute().await {
            Ok(()) => {}
            // Somebody was faster; whether it was one of us is looked at below.
            Err(error) if has_code(&error, libc::EEXIST) => {}
            Err(error) => return Err(Failure::link("make the bridge", name)(error)),
        }
        let made = self.link(name).await?.filter(|link| is_ours(link, address));
        made.map(|link| link.header.index)
            .ok_or_else(|| Failure::ForeignBridge { bridge: name.to_owned(), address })
    }

    /// Removes the bridge if it is ours and nothing is connected to it. Absence is fine.
    pub(crate) async fn remove_bridge(&self, name: &str, subnet: Ipv4Net) -> Result<(), Failure> {
        let Some(bridge) = self.link(name).await?.filter(|link| is_ours(link, gateway(subnet))) else {
            return Ok(());
        };
        let index = bridge.header.index;
        let mut links = self.0.link().get().execute();
        while let Some(link) = links.try_next().await.map_err(Failure::link("list the ports of", name))? {
            if link.attributes.contains(&LinkAttribute::Controller(index)) {
                tracing::warn!(
                    bridge = name,
                    "bridge is kept: devices no record tells of are connected to it"
                );
                return Ok(());
            }
        }
        absent_is_fine(self.0.link().del(index).execute().await).map_err(Failure::link("remove", name))
    }

    /// Makes a VM's tap, connected to the bridge and shut off from the bridge's other VMs.
    pub(crate) async fn ensure_tap(&self, name: &str, bridge: u32) -> Result<(), Failure> {
        tap::make(name).map_err(Failure::link("make the tap", name))?;
        let found = self.link(name).await?;
        let index = found.map(|link| link.header.index).ok_or_else(|| gone(name))?;
        let port = LinkUnspec::new_with_index(index).controller(bridge).up().build();
        self.0.link().change(port).execute().await.map_err(Failure::link("connect", name))?;
        let alone = LinkBridgePort::new(index).append_info_data(InfoBridgePort::Isolated(true)).build();
        self.0.link().change(alone).execute().await.map_err(Failure::link("isolate", name))
    }

    /// Removes a tap. Absence is fine.
    pub(crate) async fn remove_tap(&self, name: &str) -> Result<(), Failure> {
        let Some(link) = self.link(name).await?.filter(is_tun) else { return Ok(()) };
        absent_is_fine(self.0.link().del(link.header.index).execute().await)
            .map_err(Failure::link("remove", name))
    }

    async fn link(&self, name: &str) -> Result<Option<LinkMessage>, Failure> {
        match self.0.link().get().match_name(name.to_owned()).execute().try_next().await {
            Ok(found) => Ok(found),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(Failure::link("look at", name)(error)),
        }
    }

    /// The IPv4 networks of this host's addresses and routes; default routes are not among them.
    pub(crate) async fn in_use(&self) -> Result<(Vec<InUse>, Vec<InUse>), Failure> {
        let names = self.names().await?;
        let device = |index: u32| names.iter().find(|(i, _)| *i == index).map(|(_, name)| name.clone());
        let mut addresses = Vec::new();
        let mut messages = self.0.address().get().execute();
        while let Some(message) = messages.try_next().await.map_err(Failure::link("list", "addresses"))? {
            let length = message.header.prefix_len;
            let network = message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(IpAddr::V4(address)) => Ipv4Net::new(*address, length).ok(),
                _ => None,
            });
            addresses.extend(network.map(|network| InUse { network, device: device(message.header.index) }));
        }
        let mut routes = Vec::new();
        let filter = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let mut messages = self.0.route().get(filter).execute();
        while let Some(message) = messages.try_next().await.map_err(Failure::link("list", "routes"))? {
            let (network, index) = destination(&message);
            routes.extend(network.map(|network| InUse { network, device: index.and_then(device) }));
        }
        Ok((addresses, routes))
    }

    async fn names(&self) -> Result<Vec<(u32, String)>, Failure> {
        let mut names = Vec::new();
        let mut links = self.0.link().get().execute();
        while let Some(link) = links.try_next().await.map_err(Failure::link("list", "devices"))? {
            let name = link.attributes.iter().find_map(|a| match a {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
            names.extend(name.map(|name| (link.header.index, name)));
        }
        Ok(names)
    }
}

fn destination(route: &RouteMessage) -> (Option<Ipv4Net>, Option<u32>) {
    let length = route.header.destination_prefix_length;
    // Table 255 holds what the kernel makes itself of addresses: broadcast and local.
    if route.header.address_family != AddressFamily::Inet || length == 0 || route.header.table == 255 {
        return (None, None);
    }
    let network = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Ipv4Net::new(*address, length).ok(),
        _ => None,
    });
    let index = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    (network, index)
}

fn is_ours(link: &LinkMessage, address: Ipv4Addr) -> bool {
    let mac = mac_of(address).0;
    kind_of(link) == Some(&InfoKind::Bridge)
        && link.attributes.iter().any(|a| matches!(a, LinkAttribute::Address(found) if found[..] == mac))
}

fn is_tun(link: &LinkMessage) -> bool {
    kind_of(link) == Some(&InfoKind::Tun)
}

fn kind_of(link: &LinkMessage) -> Option<&InfoKind> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(kind),
            _ => None,
        }),
        _ => None,
    })
}

fn is_absence(error: &Error) -> bool {
    has_code(error, libc::ENODEV)
}

fn has_code(error: &Error, errno: i32) -> bool {
    matches!(error, Error::NetlinkError(message) if message.raw_code() == -errno)
}

fn absent_is_fine(answer: Result<(), Error>) -> Result<(), Error> {
    match answer {
        Err(error) if is_absence(&error) => Ok(()),
        other => other,
    }
}

fn gone(name: &str) -> Failure {
    Failure::link("find", name)(std::io::Error::from(std::io::ErrorKind::NotFound))
}
