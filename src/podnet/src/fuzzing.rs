//! The doors of `tests/fuzz` to what is private here: the same code, no behaviour of its own.

use netlink_packet_route::RouteNetlinkMessage;
use peerpods_podvm::network::{PodInterface, PodNetwork};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::proto::{NetlinkCodec, NetlinkMessageCodec};

use crate::kernel::fuzzing::{Object, object};
use crate::tunnel::TunnelSpec;

pub use crate::guard::fuzzing::{Guarding, Table};

/// What datagrams of the kernel say, in our terms.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    objects: Vec<Object>,
    /// How many messages were decoded, whatever they say.
    pub messages: usize,
    /// What the kernel refused.
    pub errors: Vec<String>,
}

impl Seen {
    /// Decodes a datagram as a connection of ours does, and translates every message.
    #[must_use]
    pub fn of(datagram: &[u8]) -> Self {
        let mut left = datagram.into();
        let mut seen = Self { objects: Vec::new(), messages: 0, errors: Vec::new() };
        while let Ok(Some(message)) = decode(&mut left) {
            seen.messages += 1;
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => seen.objects.extend(object(inner)),
                NetlinkPayload::Error(error) => {
                    let error = rtnetlink::Error::NetlinkError(error);
                    let gone = crate::kernel::gone_is_ok(Err(error.clone())).is_ok();
                    seen.errors.push(format!("{} {gone}", crate::kernel::io_error(error)));
                }
                _ => {}
            }
        }
        seen
    }

    /// Every object, as text.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.objects.iter().map(|object| format!("{object:?}")).collect()
    }

    /// The pod's interface as the worker's end describes it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn pod(&self) -> Result<PodInterface, String> {
        crate::worker::fuzzing::pod(&self.objects)
    }

    /// What laying the worker's end would do, and removing it.
    #[must_use]
    pub fn worker(&self, spec: &TunnelSpec) -> (Vec<String>, Vec<String>) {
        crate::worker::fuzzing::steps(&self.objects, spec)
    }

    /// What laying the guest's end would do.
    ///
    /// # Errors
    /// Why the network is refused.
    pub fn guest(&self, network: &PodNetwork, underlay_mtu: u32) -> Result<Vec<String>, String> {
        crate::guest::fuzzing::steps(&self.objects, network, underlay_mtu)
    }
}

fn decode(left: &mut bytes::BytesMut) -> std::io::Result<Option<NetlinkMessage<RouteNetlinkMessage>>> {
    NetlinkCodec::decode(left)
}
