//! The pod's network as data: what the worker saw in the pod's network namespace and what the guest has to rebuild.
//!
//! The wire form is the object `pod-network` of `apf.json` (cloud-api-adaptor's `tunneler` types), so that a stock guest understands
//! us and we understand a stock daemon. Keys a stock part does not know are ignored by it: `interfaces` is one, and holds what stock
//! has no words for (IPv6 beside IPv4, several addresses, metrics, more interfaces than one). Stock's own keys say as much of the
//! primary interface as a stock guest can do.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::interface::{Carried, ObservedPod, PodInterface, tunnel_mtu, vxlan_overhead};

mod interface;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no MAC address (want six hexadecimal pairs, as in 02:00:00:aa:bb:cc)")]
pub struct MacError(String);

impl FromStr for MacAddr {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let mut out = [0_u8; 6];
        let mut parts = text.split(':');
        for byte in &mut out {
            // from_str_radix alone would take a sign.
            let digits = |p: &&str| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit());
            let part = parts.next().filter(digits).ok_or_else(|| MacError(text.to_owned()))?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| MacError(text.to_owned()))?;
        }
        if parts.next().is_some() { Err(MacError(text.to_owned())) } else { Ok(Self(out)) }
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Who made a route; only these four are copied to the guest, and a stock guest rejects any other word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteProtocol {
    /// Made by the kernel when an address was added.
    Kernel,
    /// Made at boot, or by `ip route add` without a protocol.
    Boot,
    /// Made by an administrator.
    Static,
    /// Made by a DHCP client.
    Dhcp,
}

/// How far a route's destination is. `universe` is never written: it is what an absent key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteScope {
    /// Anywhere.
    #[default]
    Universe,
    /// Inside the site.
    Site,
    /// On the link.
    Link,
    /// On this host.
    Host,
    /// Does not exist.
    Nowhere,
}

/// One route of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// Destination; a default route has prefix length 0.
    #[serde(with = "prefix")]
    pub dst: IpNet,
    /// Next hop; the empty text when there is none.
    #[serde(default, with = "optional_address")]
    pub gw: Option<IpAddr>,
    /// The pod interface it leaves by; empty where that goes without saying.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dev: String,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<RouteProtocol>,
    /// How far the destination is.
    #[serde(default, skip_serializing_if = "is_universe")]
    pub scope: RouteScope,
    /// The next hop is on the link although no address says so. Our own key: a stock guest ignores it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub onlink: bool,
    /// Of several routes to one destination the one with the lowest metric is taken. 0 is the kernel's own choice, which for IPv6 is
    /// 1024. Our own key.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub metric: u32,
    /// The address packets get that have none yet. Our own key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src: Option<IpAddr>,
    /// The largest packet on this route in bytes, where that is less than the interface's; 0 when nothing is said. Our own key.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mtu: u32,
}

fn is_universe(scope: &RouteScope) -> bool {
    *scope == RouteScope::Universe
}

/// One static neighbour of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Neighbor {
    /// Its address.
    pub ip: IpAddr,
    /// Its MAC address.
    #[serde(rename = "hw-addr")]
    pub hw_addr: MacAddr,
    /// The pod interface it is seen on; empty where that goes without saying.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dev: String,
    /// Always `permanent` from us; a stock guest errors on `none`.
    pub state: String,
}

/// The object `pod-network` of `apf.json`: a pod's interface and the tunnel that carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNetwork {
    /// The pod's address with its prefix length.
    pub podip: IpNet,
    /// The pod's MAC address.
    #[serde(rename = "pod-hw-addr")]
    pub pod_hw_addr: MacAddr,
    /// The pod interface's name.
    pub interface: String,
    /// The worker's end of the tunnel, written with a prefix length as stock does.
    #[serde(rename = "worker-node-ip")]
    pub worker_node_ip: IpNet,
    /// Always `vxlan`.
    #[serde(rename = "tunnel-type")]
    pub tunnel_type: String,
    /// Routes of the pod; `null` and absent are read as none.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub routes: Vec<Route>,
    /// Permanent neighbours of the pod; `null` and absent are read as none.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub neighbors: Vec<Neighbor>,
    /// The MTU the guest sets on the pod interface, in bytes.
    pub mtu: u32,
    /// Unused in the VM; kept because stock writes it.
    #[serde(default)]
    pub index: u32,
    /// UDP port of the tunnel at both ends.
    #[serde(rename = "vxlan-port", default, skip_serializing_if = "is_zero_port")]
    pub vxlan_port: u16,
    /// VXLAN network identifier, unique on the worker for this port.
    #[serde(rename = "vxlan-id", default, skip_serializing_if = "is_zero")]
    pub vxlan_id: u32,
    /// A second VM interface carries the tunnel.
    #[serde(default)]
    pub dedicated: bool,
    /// Pod traffic to the outside leaves by the VM's own second interface.
    #[serde(rename = "external-net-via-pod-vm", default)]
    pub external_net_via_pod_vm: bool,
    /// Every interface in full, the primary first. Our own key: a stock guest goes by the keys above, a stock daemon does not write it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Carried>,
}

impl PodNetwork {
    /// The object for a pod with these interfaces, reached from `worker` by UDP `port`.
    #[must_use]
    pub fn new(primary: Carried, secondary: Vec<Carried>, worker: IpNet, port: u16) -> Self {
        let stock = primary.interface.stock_form();
        Self {
            podip: stock.address,
            pod_hw_addr: stock.mac,
            interface: stock.name,
            worker_node_ip: worker,
            tunnel_type: "vxlan".to_owned(),
            routes: stock.routes,
            neighbors: stock.neighbors,
            mtu: stock.mtu,
            index: 0,
            vxlan_port: port,
            vxlan_id: primary.vxlan_id,
            dedicated: false,
            external_net_via_pod_vm: false,
            interfaces: std::iter::once(primary).chain(secondary).map(Carried::unnamed).collect(),
        }
    }

    /// The interfaces that the guest has to rebuild, the primary first.
    #[must_use]
    pub fn carried(&self) -> Vec<Carried> {
        if !self.interfaces.is_empty() {
            return self.interfaces.clone();
        }
        let interface = PodInterface {
            name: self.interface.clone(),
            address: self.podip,
            more_addresses: Vec::new(),
            mac: self.pod_hw_addr,
            mtu: self.mtu,
            routes: self.routes.clone(),
            neighbors: self.neighbors.clone(),
        };
        vec![Carried { vxlan_id: self.vxlan_id, interface }]
    }

    /// What a stock guest does not rebuild, for people; empty when it makes all of the pod's network.
    #[must_use]
    pub fn beyond_stock(&self) -> Vec<String> {
        let mut beyond = Vec::new();
        let mut carried = self.interfaces.iter();
        if let Some(Carried { interface, .. }) = carried.next() {
            let global = |a: &&IpNet| !matches!(a, IpNet::V6(net) if net.addr().is_unicast_link_local());
            beyond.extend(interface.more_addresses.iter().filter(global).map(|a| format!("address {a}")));
            let metrics = interface.routes.iter().filter(|r| r.dst.addr().is_ipv4() && r.metric > 0).count();
            beyond.extend((metrics > 0).then(|| format!("{metrics} metrics of routes")));
        }
        beyond.extend(carried.map(|c| format!("interface {}", c.interface.name)));
        beyond
    }
}

fn is_zero_port(port: &u16) -> bool {
    *port == 0
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn null_as_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(from)?.unwrap_or_default())
}

/// `dst` as Go writes it: `::ffff:0.0.0.0/0` (a 16-byte address with an IPv4 prefix length) means the IPv4 default route.
mod prefix {
    use ipnet::Ipv4Net;

    use super::{Deserialize, Deserializer, IpNet, Serializer};

    pub(super) fn serialize<S: Serializer>(net: &IpNet, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(net)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<IpNet, D::Error> {
        let text = String::deserialize(from)?;
        let net = text.parse::<IpNet>().ok().and_then(short);
        net.ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no address prefix")))
    }

    /// For an IPv4 address in its long form with an IPv4 prefix length the IPv4 prefix that it stands for; `None` with another length.
    fn short(net: IpNet) -> Option<IpNet> {
        let IpNet::V6(long) = net else { return Some(net) };
        match long.addr().to_ipv4_mapped() {
            Some(address) => Ipv4Net::new(address, long.prefix_len()).ok().map(IpNet::V4),
            None => Some(net),
        }
    }
}

/// `gw` as Go writes it: the empty text for no gateway; an IPv4 address may come in its 16-byte form.
mod optional_address {
    use super::{Deserialize, Deserializer, IpAddr, Serializer};

    pub(super) fn serialize<S: Serializer>(gw: &Option<IpAddr>, to: S) -> Result<S::Ok, S::Error> {
        match gw {
            Some(address) => to.collect_str(address),
            None => to.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<IpAddr>, D::Error> {
        let text = Option::<String>::deserialize(from)?.unwrap_or_default();
        if text.is_empty() {
            return Ok(None);
        }
        let address = text.parse::<IpAddr>().map(|address| Some(address.to_canonical()));
        address.map_err(|_| serde::de::Error::custom(format!("{text:?} is no IP address")))
    }
}

#[cfg(test)]
mod tests;
