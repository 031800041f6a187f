//! Changes to links, addresses, routes and neighbours. Each answers with the kernel's own error, so that callers say what it was for.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RulePortRange};
use peerpods_podvm::network::{MacAddr, Route, RouteProtocol, RouteScope};
use rtnetlink::{AddressMessageBuilder, Error, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use super::{Rtnl, gone_is_ok};
use crate::guest::{Answer, RoutingRule};

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

    /// Gives a device an address, with the connected route the kernel makes of it.
    pub(crate) async fn add_address(&self, index: u32, net: IpNet) -> Result<(), Error> {
        self.handle.address().add(index, net.addr(), net.prefix_len()).replace().execute().await
    }

    /// Gives a device an address and makes no route of it.
    pub(crate) async fn add_address_alone(&self, index: u32, net: IpNet) -> Result<(), Error> {
        let mut request = self.handle.address().add(index, net.addr(), net.prefix_len());
        let message = request.message_mut();
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
        request.execute().await
    }

    /// Takes an IPv4 address from a device; Ok when it has gone.
    pub(crate) async fn remove_address(&self, index: u32, net: Ipv4Net) -> Result<(), Error> {
        let message = AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(net.addr(), net.prefix_len())
            .build();
        gone_is_ok(self.handle.address().del(message).execute().await)
    }

    /// Adds a route by a device. `source` is the address packets get that have none yet.
    pub(crate) async fn add_route(
        &self,
        link: u32,
        route: &Route,
        source: Option<Ipv4Addr>,
    ) -> Result<(), Error> {
        self.handle.route().add(route_message(link, route, source)?).execute().await
    }

    /// Adds a route by a device, in place of what there is for the same destination.
    pub(crate) async fn replace_route(&self, link: u32, route: &Route) -> Result<(), Error> {
        self.handle.route().add(route_message(link, route, None)?).replace().execute().await
    }

    /// Removes a route of a device; Ok when it has gone.
    pub(crate) async fn remove_route(&self, link: u32, route: &Route) -> Result<(), Error> {
        gone_is_ok(self.handle.route().del(route_message(link, route, None)?).execute().await)
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

fn route_message(link: u32, route: &Route, source: Option<Ipv4Addr>) -> Result<RouteMessage, Error> {
    let IpNet::V4(dst) = route.dst.trunc() else { return Err(not_ipv4(route)) };
    let mut message = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(dst.addr(), dst.prefix_len())
        .output_interface(link)
        .protocol(protocol(route.protocol))
        .scope(scope(route.scope));
    message = match route.gw {
        Some(IpAddr::V4(gw)) => message.gateway(gw),
        Some(IpAddr::V6(_)) => return Err(not_ipv4(route)),
        None => message,
    };
    if let Some(source) = source {
        message = message.pref_source(source);
    }
    if route.onlink {
        message = message.onlink();
    }
    Ok(message.build())
}

fn not_ipv4(route: &Route) -> Error {
    Error::InvalidNla(format!("{} via {:?} is no IPv4 route", route.dst, route.gw))
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
