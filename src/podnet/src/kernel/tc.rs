//! Redirections by traffic control: an ingress qdisc and a u32 filter that matches everything, with the action "mirred egress redirect";
//! and programs that drop packets before they are redirected.
//!
//! u32 and not matchall or flower: it is the one classifier every kernel has that we met, and the one stock uses.

use futures::TryStreamExt;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirrorOption, TcActionOption, TcAttribute, TcFilterBpf,
    TcFilterBpfOption, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirrorActionType, TcOption,
};
use nix::errno::Errno;
use rtnetlink::Error;
use rtnetlink::packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, Nla};

use super::{Rtnl, failed, gone_is_ok, said};
use crate::tunnel::TunnelError;

/// ETH_P_ALL: every frame.
pub(crate) const EVERY_PROTOCOL: u16 = 0x0003;

/// Where filters on received frames hang, with an ingress and with a clsact qdisc alike (`tc filter … ingress`).
const RECEIVED: TcHandle = TcHandle { major: 0xffff, minor: TcHandle::MIN_INGRESS };

/// What holds the filters on received frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Qdisc {
    /// The plain ingress qdisc, as we make it.
    Ingress,
    /// One that holds filters for both directions; never ours.
    Clsact,
}

/// A filter on received frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) priority: u16,
    /// EtherType in host order; [`EVERY_PROTOCOL`] for all.
    pub(crate) protocol: u16,
    pub(crate) kind: String,
    /// Its number among those of the same priority, protocol and kind.
    pub(crate) handle: u32,
    /// The device it redirects to, if that is what it does.
    pub(crate) redirect: Option<u32>,
    /// Its instructions, if it is a program of classic BPF that itself decides.
    pub(crate) program: Option<Vec<u8>>,
}

/// What is done to the frames a device receives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Received {
    pub(crate) qdisc: Option<Qdisc>,
    pub(crate) filters: Vec<Filter>,
}

impl Rtnl {
    /// What is done to the frames this device receives.
    pub(crate) async fn received(&self, link: u32) -> Result<Received, TunnelError> {
        let step = || format!("list the traffic control of device {link}");
        let Ok(index) = i32::try_from(link) else { return Ok(Received::default()) };
        let all: Vec<TcMessage> =
            self.handle.qdisc().get().index(index).execute().try_collect().await.map_err(failed(step()))?;
        // Older kernels answer with the qdiscs of all devices.
        let Some(qdisc) = all.iter().filter(|m| m.header.index == index).find_map(qdisc) else {
            return Ok(Received::default());
        };
        let found = self.handle.traffic_filter(index).get().ingress().execute();
        let found: Vec<TcMessage> = found.try_collect().await.map_err(failed(step()))?;
        let filters = found.iter().filter(|m| m.header.index == index).filter_map(filter).collect();
        Ok(Received { qdisc: Some(qdisc), filters })
    }

    /// Adds an ingress qdisc.
    pub(crate) async fn add_ingress(&self, link: u32) -> Result<(), Error> {
        self.handle.qdisc().add(tc_index(link)?).ingress().execute().await
    }

    /// Removes the ingress qdisc with all its filters; Ok when there is none.
    pub(crate) async fn remove_ingress(&self, link: u32) -> Result<(), Error> {
        let mut request = self.handle.qdisc().del(tc_index(link)?);
        request.message_mut().header.parent = TcHandle::INGRESS;
        request.message_mut().header.handle = TcHandle { major: 0xffff, minor: 0 };
        match gone_is_ok(request.execute().await) {
            // "Invalid handle": no qdisc there.
            Err(e) if said(&e, &[Errno::EINVAL]) => Ok(()),
            other => other,
        }
    }

    /// Sends every frame that `from` receives out by `to`.
    pub(crate) async fn add_redirect(&self, from: u32, to: u32, priority: u16) -> Result<(), Error> {
        self.handle
            .traffic_filter(tc_index(from)?)
            .add()
            .ingress()
            .priority(priority)
            .protocol(EVERY_PROTOCOL.to_be())
            .redirect(to)?
            .execute()
            .await
    }

    /// Removes every filter of this kind, priority and protocol; Ok when there is none.
    pub(crate) async fn remove_filter(&self, link: u32, filter: &Filter) -> Result<(), Error> {
        let mut message = TcMessage::with_index(tc_index(link)?);
        message.header.parent = RECEIVED;
        message.header.info = u32::from(TcHandle { major: filter.priority, minor: filter.protocol.to_be() });
        message.attributes.push(TcAttribute::Kind(filter.kind.clone()));
        gone_is_ok(self.acknowledged(RouteNetlinkMessage::DelTrafficFilter(message), 0).await)
    }

    /// Has a program of classic BPF decide about every frame a device receives, eight bytes an instruction.
    pub(crate) async fn add_program(&self, link: u32, priority: u16, program: &[u8]) -> Result<(), Error> {
        self.set_program(program_message(link, priority, program)?, NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Gives a filter that is a program another one, between two frames: there is none that neither sees.
    pub(crate) async fn replace_program(
        &self,
        link: u32,
        filter: &Filter,
        program: &[u8],
    ) -> Result<(), Error> {
        let mut message = program_message(link, filter.priority, program)?;
        message.header.handle = TcHandle::from(filter.handle);
        self.set_program(message, NLM_F_CREATE).await
    }

    async fn set_program(&self, message: TcMessage, flags: u16) -> Result<(), Error> {
        self.acknowledged(RouteNetlinkMessage::NewTrafficFilter(message), flags).await
    }
}

fn program_message(link: u32, priority: u16, program: &[u8]) -> Result<TcMessage, Error> {
    let too_long = |_| Error::InvalidNla(format!("a program of {} bytes", program.len()));
    let instructions = u16::try_from(program.len() / 8).map_err(too_long)?;
    let mut message = TcMessage::with_index(tc_index(link)?);
    message.header.parent = RECEIVED;
    message.header.info = u32::from(TcHandle { major: priority, minor: EVERY_PROTOCOL.to_be() });
    let option = |kind, value: Vec<u8>| TcOption::Bpf(TcFilterBpfOption::Other(DefaultNla::new(kind, value)));
    let options = vec![
        option(TCA_BPF_OPS_LEN, instructions.to_ne_bytes().into()),
        option(TCA_BPF_OPS, program.to_vec()),
        option(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes().into()),
    ];
    message.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    message.attributes.push(TcAttribute::Options(options));
    Ok(message)
}

/// Of `linux/pkt_cls.h`.
const TCA_BPF_OPS_LEN: u16 = 4;
const TCA_BPF_OPS: u16 = 5;
const TCA_BPF_FLAGS: u16 = 8;
/// What the program returns is what becomes of the packet.
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;

fn tc_index(link: u32) -> Result<i32, Error> {
    i32::try_from(link).map_err(|_| Error::InvalidNla(format!("{link} is no device index")))
}

pub(super) fn qdisc(message: &TcMessage) -> Option<Qdisc> {
    match kind(message)? {
        "ingress" => Some(Qdisc::Ingress),
        "clsact" => Some(Qdisc::Clsact),
        _ => None,
    }
}

fn kind(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|a| if let TcAttribute::Kind(k) = a { Some(k.as_str()) } else { None })
}

/// `None` for what is no rule of its own: the head of a chain, and a u32 hash table.
pub(super) fn filter(message: &TcMessage) -> Option<Filter> {
    let options = message.attributes.iter().find_map(|a| match a {
        TcAttribute::Options(options) => Some(options.as_slice()),
        _ => None,
    })?;
    let kind = kind(message)?;
    let table = options.iter().any(|o| matches!(o, TcOption::U32(TcFilterU32Option::Divisor(_))));
    if kind == TcFilterU32::KIND && table {
        return None;
    }
    let info = TcHandle::from(message.header.info);
    Some(Filter {
        priority: info.major,
        protocol: u16::from_be(info.minor),
        kind: kind.to_owned(),
        handle: u32::from(message.header.handle),
        redirect: options.iter().find_map(|o| match o {
            TcOption::U32(TcFilterU32Option::Action(actions)) => actions.iter().find_map(redirection),
            _ => None,
        }),
        program: options.iter().find_map(|o| match o {
            TcOption::Bpf(TcFilterBpfOption::Other(nla)) if nla.kind() == TCA_BPF_OPS => Some(value(nla)),
            _ => None,
        }),
    })
}

fn value(attribute: &DefaultNla) -> Vec<u8> {
    let mut out = vec![0; attribute.value_len()];
    attribute.emit_value(&mut out);
    out
}

fn redirection(action: &TcAction) -> Option<u32> {
    let options = action.attributes.iter().find_map(|a| match a {
        TcActionAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    options.iter().find_map(|o| match o {
        TcActionOption::Mirror(TcActionMirrorOption::Parms(m))
            if m.eaction == TcMirrorActionType::EgressRedir =>
        {
            Some(m.ifindex)
        }
        _ => None,
    })
}
