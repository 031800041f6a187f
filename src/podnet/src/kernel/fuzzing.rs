//! What a message of the kernel says in our terms, for `tests/fuzz`: the translations of `read` and `tc`, one message at a time.

use netlink_packet_route::RouteNetlinkMessage as Message;
use peerpods_podvm::network::MacAddr;

use super::tc::{self, Filter, Qdisc};
use super::{Address, KernelRoute, Link, read, routes};

/// One object of the kernel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Object {
    Link(Link),
    Address(Address),
    Route(KernelRoute),
    Neighbour { link: u32, ip: std::net::IpAddr, mac: MacAddr },
    NetnsId(i32),
    Qdisc { link: i32, qdisc: Qdisc },
    Filter { link: i32, filter: Filter },
}

/// `None` for what we have no eyes for.
pub(crate) fn object(message: Message) -> Option<Object> {
    match message {
        Message::NewLink(message) => Some(Object::Link(read::link(message))),
        Message::NewAddress(message) => read::address(&message).map(Object::Address),
        Message::NewRoute(message) => routes::route(&message).map(Object::Route),
        Message::NewNeighbour(message) => {
            let link = message.header.ifindex;
            read::neighbour(&message).map(|(ip, mac)| Object::Neighbour { link, ip, mac })
        }
        Message::NewNsId(message) => read::assigned(&message).map(Object::NetnsId),
        Message::NewQueueDiscipline(message) => {
            tc::qdisc(&message).map(|qdisc| Object::Qdisc { link: message.header.index, qdisc })
        }
        Message::NewTrafficFilter(message) => {
            tc::filter(&message).map(|filter| Object::Filter { link: message.header.index, filter })
        }
        _ => None,
    }
}
