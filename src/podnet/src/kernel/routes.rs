//! Routes of both families, and where packets to an address leave.

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType, RouteVia,
};
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;

use super::{Rtnl, failed, said};
use crate::tunnel::TunnelError;

/// A unicast route of the main table, of either family. Of several next hops the first stands for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelRoute {
    pub(crate) link: Option<u32>,
    pub(crate) dst: IpNet,
    pub(crate) gw: Option<IpAddr>,
    pub(crate) protocol: RouteProtocol,
    pub(crate) scope: RouteScope,
    pub(crate) onlink: bool,
    pub(crate) metric: u32,
    /// The source address it gives.
    pub(crate) src: Option<IpAddr>,
    /// Its own MTU; 0 when it has none.
    pub(crate) mtu: u32,
}

/// Where packets to an address leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Towards {
    pub(crate) link: u32,
    /// The route's own MTU, learned or configured, in bytes.
    pub(crate) mtu: Option<u32>,
    /// The source address that the kernel gives them.
    pub(crate) source: Option<IpAddr>,
}

impl Rtnl {
    /// The unicast routes of the main table, IPv4 first, in the kernel's order.
    pub(crate) async fn routes(&self) -> Result<Vec<KernelRoute>, TunnelError> {
        let all = [
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        ];
        let mut routes = Vec::new();
        for question in all {
            let family = question.header.address_family;
            let found: Vec<RouteMessage> = self
                .handle
                .route()
                .get(question)
                .execute()
                .try_collect()
                .await
                .map_err(failed("list routes"))?;
            // A kernel without IPv6 answers with its IPv4 routes.
            routes.extend(found.iter().filter(|m| m.header.address_family == family).filter_map(route));
        }
        Ok(routes)
    }

    /// Where packets to `address` leave.
    pub(crate) async fn towards(&self, address: IpAddr) -> Result<Towards, TunnelError> {
        let unreachable = || TunnelError::Unreachable { address };
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let question = RouteMessageBuilder::<IpAddr>::new().destination_prefix(address, whole);
        let question = question.map_err(|_| unreachable())?.build();
        let answer = self.handle.route().get(question).execute().try_next().await;
        let answer = match answer {
            Err(e) if said(&e, &[Errno::ENETUNREACH, Errno::EHOSTUNREACH]) => return Err(unreachable()),
            other => other.map_err(failed(format!("look up the route to {address}")))?,
        };
        let answer = answer.ok_or_else(unreachable)?;
        let link = answer.attributes.iter().find_map(oif).ok_or_else(unreachable)?;
        let mtu = Some(route_mtu(&answer.attributes)).filter(|mtu| *mtu > 0);
        Ok(Towards { link, mtu, source: answer.attributes.iter().find_map(source) })
    }
}

pub(super) fn route(message: &RouteMessage) -> Option<KernelRoute> {
    let header = &message.header;
    let main = u32::from(RouteHeader::RT_TABLE_MAIN);
    let table = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let wanted = header.kind == RouteType::Unicast
        && table.unwrap_or(u32::from(header.table)) == main
        && !header.flags.contains(RouteFlags::Cloned);
    let dst = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    });
    let any = match header.address_family {
        AddressFamily::Inet => IpNet::V4(Ipv4Net::default()),
        AddressFamily::Inet6 => IpNet::V6(Ipv6Net::default()),
        _ => return None,
    };
    let dst = dst.map_or(Ok(any), |ip| IpNet::new(ip, header.destination_prefix_length));
    let hops = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::MultiPath(hops) => hops.first(),
        _ => None,
    });
    let inner = hops.map(|h| h.attributes.as_slice()).unwrap_or_default();
    wanted.then_some(KernelRoute {
        link: message.attributes.iter().find_map(oif).or(hops.map(|h| h.interface_index)),
        dst: dst.ok()?,
        gw: message.attributes.iter().chain(inner).find_map(gateway),
        protocol: header.protocol,
        scope: header.scope,
        onlink: header.flags.contains(RouteFlags::Onlink),
        metric: message.attributes.iter().find_map(priority).unwrap_or(0),
        src: message.attributes.iter().find_map(source),
        mtu: route_mtu(&message.attributes),
    })
}

fn source(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::PrefSource(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn route_mtu(attributes: &[RouteAttribute]) -> u32 {
    let metrics = attributes.iter().find_map(|a| match a {
        RouteAttribute::Metrics(metrics) => Some(metrics.as_slice()),
        _ => None,
    });
    let mtu = metrics.unwrap_or_default().iter().find_map(|m| match m {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    mtu.unwrap_or(0)
}

fn oif(attribute: &RouteAttribute) -> Option<u32> {
    if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None }
}

fn priority(attribute: &RouteAttribute) -> Option<u32> {
    if let RouteAttribute::Priority(metric) = attribute { Some(*metric) } else { None }
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        RouteAttribute::Via(RouteVia::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}
