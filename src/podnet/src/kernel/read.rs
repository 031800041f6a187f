//! Dumps of links, addresses and neighbours.

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use nix::errno::Errno;
use peerpods_podvm::network::MacAddr;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};

use super::{Rtnl, failed, said};
use crate::netns::Netns;
use crate::tunnel::TunnelError;
use crate::vxlan::Vxlan;

/// What a link is, as far as we care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkKind {
    /// The loopback device.
    Loopback,
    /// A VXLAN device.
    Vxlan(Vxlan),
    /// An Ethernet device without a kind of its own: hardware, or what a hypervisor shows as such.
    Ethernet,
    /// Another device that carries Ethernet frames, such as veth.
    VirtualEthernet,
    /// Anything else.
    Other,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) kind: LinkKind,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    pub(crate) mac: Option<MacAddr>,
    /// The id, in this namespace's count, of the namespace its other half is in; `None` when that is this one.
    pub(crate) other_netns: Option<i32>,
    /// The device it lies on (a VLAN's or macvlan's), or its pair; in this namespace unless `other_netns` says otherwise.
    pub(crate) lower: Option<u32>,
    /// The bridge or bond it is a port of.
    pub(crate) controller: Option<u32>,
}

/// An address of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) link: u32,
    pub(crate) net: IpNet,
    pub(crate) global: bool,
    pub(crate) secondary: bool,
}

impl Rtnl {
    /// All devices.
    pub(crate) async fn links(&self) -> Result<Vec<Link>, TunnelError> {
        let found: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(failed("list network devices"))?;
        Ok(found.into_iter().map(link).collect())
    }

    /// The device of that name, if any.
    pub(crate) async fn link(&self, name: &str) -> Result<Option<Link>, TunnelError> {
        let found = self.handle.link().get().match_name(name).execute().try_next().await;
        let found = match found {
            Err(error) if said(&error, &[Errno::ENODEV]) => return Ok(None),
            found => found.map_err(failed(format!("look for the network device {name}")))?,
        };
        // The kernel also finds a device by its other names.
        Ok(found.map(link).filter(|link| link.name == name))
    }

    /// The device with that index, if any. To be used in the worker's namespace instead of a list: for each half of a pod's pair there the
    /// kernel searches all namespaces it knows, so that with a thousand pods a list takes a hundred times as long.
    pub(crate) async fn link_at(&self, index: u32) -> Result<Option<Link>, TunnelError> {
        match self.handle.link().get().match_index(index).execute().try_next().await {
            Err(error) if said(&error, &[Errno::ENODEV]) => Ok(None),
            found => Ok(found.map_err(failed(format!("look for the network device {index}")))?.map(link)),
        }
    }

    /// The device that has an address, if any.
    pub(crate) async fn link_with(&self, address: IpAddr) -> Result<Option<Link>, TunnelError> {
        let mut question = self.handle.address().get();
        question.message_mut().header.family =
            if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let found: Vec<AddressMessage> =
            question.execute().try_collect().await.map_err(failed("list addresses"))?;
        let own = found.iter().filter_map(self::address).find(|found| found.net.addr() == address);
        match own {
            Some(own) => self.link_at(own.link).await,
            None => Ok(None),
        }
    }

    /// All addresses, both families, but for those that are about to change or turned out to be somebody else's.
    pub(crate) async fn addresses(&self) -> Result<Vec<Address>, TunnelError> {
        let found: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.map_err(failed("list addresses"))?;
        Ok(found.iter().filter_map(address).collect())
    }

    /// The permanent neighbours of one device, IPv4 first.
    pub(crate) async fn permanent_neighbours(
        &self,
        link: u32,
    ) -> Result<Vec<(IpAddr, MacAddr)>, TunnelError> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = self.handle.neighbours().get().set_address_family(family);
            let found: Vec<NeighbourMessage> =
                request.execute().try_collect().await.map_err(failed("list neighbours"))?;
            let mine = |n: &&NeighbourMessage| n.header.ifindex == link && n.header.family == family;
            all.extend(found.iter().filter(mine).filter_map(neighbour));
        }
        Ok(all)
    }

    /// The id this socket's namespace knows `other` by, if it has given it one.
    pub(crate) async fn netns_id(&self, other: &Netns) -> Result<Option<i32>, TunnelError> {
        let step = || format!("identify the network namespace {}", other.path().display());
        let bad_fd = |_| failed(step())(rtnetlink::Error::RequestFailed);
        let mut question = NsidMessage::default();
        question.attributes.push(NsidAttribute::Fd(other.raw_fd().try_into().map_err(bad_fd)?));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(question));
        request.header.flags = NLM_F_REQUEST;
        let mut answers = self.handle.clone().request(request).map_err(failed(step()))?;
        match futures::StreamExt::next(&mut answers).await.map(|m| m.payload) {
            Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(m))) => Ok(assigned(&m)),
            Some(NetlinkPayload::Error(e)) => Err(failed(step())(rtnetlink::Error::NetlinkError(e))),
            _ => Err(failed(step())(rtnetlink::Error::RequestFailed)),
        }
    }
}

pub(super) fn assigned(message: &NsidMessage) -> Option<i32> {
    message.attributes.iter().find_map(|a| match a {
        NsidAttribute::Id(id) if *id >= 0 => Some(*id),
        _ => None,
    })
}

pub(super) fn link(message: LinkMessage) -> Link {
    let header = &message.header;
    let mut out = Link {
        index: header.index,
        name: String::new(),
        kind: match header.link_layer_type {
            LinkLayerType::Loopback => LinkKind::Loopback,
            LinkLayerType::Ether => LinkKind::Ethernet,
            _ => LinkKind::Other,
        },
        up: header.flags.contains(LinkFlags::Up),
        mtu: 0,
        mac: None,
        other_netns: None,
        lower: None,
        controller: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => out.name = name,
            LinkAttribute::Mtu(mtu) => out.mtu = mtu,
            LinkAttribute::Address(bytes) => out.mac = bytes.try_into().ok().map(MacAddr),
            LinkAttribute::LinkNetNsId(id) => out.other_netns = Some(id),
            LinkAttribute::Link(index) => out.lower = Some(index).filter(|index| *index > 0),
            LinkAttribute::Controller(index) => out.controller = Some(index).filter(|index| *index > 0),
            LinkAttribute::LinkInfo(infos) => out.kind = kind(out.kind, &infos),
            _ => {}
        }
    }
    out
}

fn kind(plain: LinkKind, infos: &[LinkInfo]) -> LinkKind {
    let data = infos.iter().find_map(|i| match i {
        LinkInfo::Data(InfoData::Vxlan(infos)) => Some(infos.as_slice()),
        _ => None,
    });
    let named = infos.iter().find_map(|i| if let LinkInfo::Kind(kind) = i { Some(kind) } else { None });
    match named {
        Some(InfoKind::Vxlan) => LinkKind::Vxlan(vxlan(data.unwrap_or_default())),
        Some(_) if plain == LinkKind::Ethernet => LinkKind::VirtualEthernet,
        _ => plain,
    }
}

fn vxlan(infos: &[InfoVxlan]) -> Vxlan {
    let mut out = Vxlan { vni: 0, port: 0, local: None, remote: None, learning: true };
    for info in infos {
        match info {
            InfoVxlan::Id(vni) => out.vni = *vni,
            InfoVxlan::Port(port) => out.port = *port,
            InfoVxlan::Group(remote) => out.remote = Some(IpAddr::V4(*remote)),
            InfoVxlan::Group6(remote) => out.remote = Some(IpAddr::V6(*remote)),
            InfoVxlan::Local(local) => out.local = Some(IpAddr::V4(*local)),
            InfoVxlan::Local6(local) => out.local = Some(IpAddr::V6(*local)),
            InfoVxlan::Learning(on) => out.learning = *on,
            _ => {}
        }
    }
    out
}

pub(super) fn address(message: &AddressMessage) -> Option<Address> {
    let flags = message.header.flags;
    // For IPv6 this flag means a temporary address, which is replaced every day.
    let temporary =
        message.header.family == AddressFamily::Inet6 && flags.contains(AddressHeaderFlags::Secondary);
    if temporary || flags.contains(AddressHeaderFlags::Dadfailed) {
        return None;
    }
    // IFA_LOCAL is the address itself; IFA_ADDRESS is the peer's on a point-to-point device, and all there is for IPv6.
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    let net = IpNet::new(local.or(any)?, message.header.prefix_len).ok()?;
    Some(Address {
        link: message.header.index,
        net,
        global: message.header.scope == AddressScope::Universe,
        secondary: flags.contains(AddressHeaderFlags::Secondary),
    })
}

pub(super) fn neighbour(message: &NeighbourMessage) -> Option<(IpAddr, MacAddr)> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let mut ip = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(MacAddr)
            }
            _ => {}
        }
    }
    ip.zip(mac)
}
