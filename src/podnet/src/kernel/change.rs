//! Changes to links, addresses, routes and neighbours. Each answers with the kernel's own error, so that callers say what it was for.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteMetric};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RulePortRange};
use nix::errno::Errno;
use peerpods_podvm::network::{MacAddr, Route, RouteProtocol, RouteScope};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::{Error, LinkBridge, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use super::{Rtnl, gone_is_ok, said};
use crate::guest::{Answer, RoutingRule};

/// How long the kernel may take until an IPv6 address counts, and how often that is looked at.
const TENTATIVE: Duration = Duration::from_secs(1);
const TENTATIVE_POLL: Duration = Duration::from_millis(2);

impl Rtnl {
    /// Makes a device as described.
    pub(crate) async fn add_link(&self, message: LinkMessage) -> Result<(), Error> {
        self.handle.link().add(message).execute().await
    }

    /// Removes a device; Ok when it has gone.
    pub(crate) async fn remove_link(&self, index: u32) -> Result<(), Error> {
        gone_is_ok(self.handle.link().del(index).execute().await)
    }

    /// Sets a device up.
    pub(crate) async fn set_up(&self, index: u32) -> Result<(), Error> {
        self.change_link(LinkUnspec::new_with_index(index).up()).await
    }

    /// Gives a device, which must be down, another name.
    pub(crate) async fn rename(&self, index: u32, name: &str) -> Result<(), Error> {
        self.change_link(LinkUnspec::new_with_index(index).name(name.to_owned())).await
    }

    /// Sets the loopback device up, which has index 1 in every namespace.
    pub(crate) async fn loopback_up(&self) -> Result<(), Error> {
        self.set_up(1).await
    }

    /// Sets a device's MTU in bytes.
    pub(crate) async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), Error> {
        self.change_link(LinkUnspec::new_with_index(index).mtu(mtu)).await
    }

    /// Sets a device's MAC address.
    pub(crate) async fn set_mac(&self, index: u32, mac: MacAddr) -> Result<(), Error> {
        self.change_link(LinkUnspec::new_with_index(index).address(mac.0.to_vec())).await
    }

    async fn change_link(&self, message: LinkMessageBuilder<LinkUnspec>) -> Result<(), Error> {
        self.handle.link().change(message.build()).execute().await
    }

    /// Has a device make up no IPv6 address of its own when it comes up, and so say nothing by itself. Ok on a kernel without IPv6.
    pub(crate) async fn no_own_address(&self, index: u32) -> Result<(), Error> {
        let none = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let message =
            LinkUnspec::new_with_index(index).append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![none]));
        match self.change_link(message).await {
            Err(e) if said(&e, &[Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP]) => Ok(()),
            done => done,
        }
    }

    /// Makes a bridge, down and without ports.
    pub(crate) async fn add_bridge(&self, name: &str) -> Result<(), Error> {
        self.add_link(LinkMessageBuilder::<LinkBridge>::new(name).build()).await
    }

    /// Makes a device a port of a bridge.
    pub(crate) async fn set_controller(&self, index: u32, bridge: u32) -> Result<(), Error> {
        self.change_link(LinkUnspec::new_with_index(index).controller(bridge)).await
    }

    /// Gives a device an address, with the connected route the kernel makes of it. An IPv6 address counts at once.
    pub(crate) async fn add_address(&self, index: u32, net: IpNet) -> Result<(), Error> {
        let mut request = self.handle.address().add(index, net.addr(), net.prefix_len()).replace();
        if net.addr().is_ipv6() {
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await
    }

    /// Gives a device an address and makes no route of it. An IPv6 address counts at once.
    pub(crate) async fn add_address_alone(&self, index: u32, net: IpNet) -> Result<(), Error> {
        let mut request = self.handle.address().add(index, net.addr(), net.prefix_len());
        let flags = match net {
            IpNet::V4(_) => AddressFlags::Noprefixroute,
            // Whoever had the address before us is the pod's own namespace, which no longer answers.
            IpNet::V6(_) => AddressFlags::Noprefixroute | AddressFlags::Nodad,
        };
        request.message_mut().attributes.push(AddressAttribute::Flags(flags));
        request.execute().await
    }

    /// Takes an address from a device; Ok when it has gone.
    pub(crate) async fn remove_address(&self, index: u32, net: IpNet) -> Result<(), Error> {
        let message = self.handle.address().add(index, net.addr(), net.prefix_len()).message_mut().clone();
        gone_is_ok(self.handle.address().del(message).execute().await)
    }

    /// Adds a route by a device.
    pub(crate) async fn add_route(&self, link: u32, route: &Route) -> Result<(), Error> {
        let message = route_message(link, route)?;
        let began = tokio::time::Instant::now();
        loop {
            match self.insert_route(message.clone()).await {
                // A source address is refused until it counts, which takes the kernel a moment even without duplicate detection.
                Err(e)
                    if route.src.is_some_and(|src| src.is_ipv6())
                        && said(&e, &[Errno::EINVAL])
                        && began.elapsed() < TENTATIVE =>
                {
                    tokio::time::sleep(TENTATIVE_POLL).await;
                }
                done => return done,
            }
        }
    }

    /// Without "exclusive": to IPv6 that would mean whatever the device, and every device has its own route to fe80::/64.
    async fn insert_route(&self, message: RouteMessage) -> Result<(), Error> {
        let exclusive = if message.header.address_family == AddressFamily::Inet6 { 0 } else { NLM_F_EXCL };
        self.acknowledged(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | exclusive).await
    }

    /// Adds a route by a device, in place of what there is for the same destination.
    pub(crate) async fn replace_route(&self, link: u32, route: &Route) -> Result<(), Error> {
        self.handle.route().add(route_message(link, route)?).replace().execute().await
    }

    /// Removes a route of a device; Ok when it has gone.
    pub(crate) async fn remove_route(&self, link: u32, route: &Route) -> Result<(), Error> {
        gone_is_ok(self.handle.route().del(route_message(link, route)?).execute().await)
    }

    /// Adds a rule about one destination, before the tables are asked; `EEXIST` when it is there.
    pub(crate) async fn add_rule(&self, rule: &RoutingRule) -> Result<(), Error> {
        let mut request = self.handle.rule().add().priority(rule.priority);
        request = match rule.answer {
            Answer::Refused => request.action(RuleAction::Prohibit),
            Answer::Routed(transport, port) => {
                let port = RulePortRange { start: port, end: port };
                let of = [RuleAttribute::IpProtocol(transport), RuleAttribute::DestinationPortRange(port)];
                request.message_mut().attributes.extend(of);
                request.action(RuleAction::ToTable)
            }
        };
        match rule.destination {
            IpAddr::V4(v4) => request.v4().destination_prefix(v4, 32).execute().await,
            IpAddr::V6(v6) => request.v6().destination_prefix(v6, 128).execute().await,
        }
    }

    /// Makes a neighbour permanent, in place of what there is for the same address.
    pub(crate) async fn set_neighbour(&self, link: u32, ip: IpAddr, mac: MacAddr) -> Result<(), Error> {
        self.handle.neighbours().add(link, ip).link_layer_address(&mac.0).replace().execute().await
    }
}

fn route_message(link: u32, route: &Route) -> Result<RouteMessage, Error> {
    let odd = |_| Error::InvalidNla(format!("{} via {:?} mixes IPv4 and IPv6", route.dst, route.gw));
    let dst = route.dst.trunc();
    let mut message = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(dst.addr(), dst.prefix_len())
        .map_err(odd)?
        .output_interface(link)
        .protocol(protocol(route.protocol))
        .scope(scope(route.scope));
    if let Some(gw) = route.gw {
        message = message.gateway(gw).map_err(odd)?;
    }
    if let Some(source) = route.src {
        message = message.pref_source(source).map_err(odd)?;
    }
    if route.onlink {
        message = message.onlink();
    }
    if route.metric > 0 {
        message = message.priority(route.metric);
    }
    let mut message = message.build();
    if route.mtu > 0 {
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(route.mtu)]));
    }
    Ok(message)
}

fn protocol(of: Option<RouteProtocol>) -> netlink_packet_route::route::RouteProtocol {
    use netlink_packet_route::route::RouteProtocol as Kernel;
    match of {
        Some(RouteProtocol::Kernel) => Kernel::Kernel,
        Some(RouteProtocol::Static) => Kernel::Static,
        Some(RouteProtocol::Dhcp) => Kernel::Dhcp,
        // As `ip route add` does without a protocol.
        Some(RouteProtocol::Boot) | None => Kernel::Boot,
    }
}

fn scope(of: RouteScope) -> netlink_packet_route::route::RouteScope {
    use netlink_packet_route::route::RouteScope as Kernel;
    match of {
        RouteScope::Universe => Kernel::Universe,
        RouteScope::Site => Kernel::Site,
        RouteScope::Link => Kernel::Link,
        RouteScope::Host => Kernel::Host,
        RouteScope::Nowhere => Kernel::NoWhere,
    }
}
