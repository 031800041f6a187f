//! Whether full packets come through the tunnel, both ways, found out when a pod starts and not by its users.
//!
//! ```text
//!  worker ── ARP or neighbour question, padded to the full size, by UDP with "do not fragment" ──▶ VXLAN device in the VM
//!     ▲ ◀──────────────── the answer of the VM's kernel, through the tunnel ──────────────────────────┘
//!     └───────────────── announcements of the guest daemon, small and full, "do not fragment" ─────── guest
//! ```
//!
//! Everything goes to the tunnel's own UDP port, which has to be open anyway: security groups often drop ICMP, so neither echo nor path
//! MTU discovery can be relied upon. Any guest's kernel answers the question, a stock one too, and keeps nothing of it over IPv4 (its sender
//! has no address, RFC 5227); over IPv6 a neighbour entry that it forgets within minutes. Of the way back a stock guest shows only that small packets pass. The packets are sent from before the VM boots, so
//! a start that goes well waits for nothing: both directions are known before the agent answers.
//!
//! `frame` is the bytes, `verdict` decides, this module sends and listens. Nothing here changes the tunnel.

mod frame;
mod verdict;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, recv};
use peerpods_podvm::network::{MacAddr, PodInterface, vxlan_overhead};
use tokio::io::unix::AsyncFd;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use self::frame::{Question, SMALL};
use self::verdict::{Guest, Seen, Verdict, verdict};
use crate::netns::Netns;
use crate::tunnel::{TunnelError, TunnelSpec};
use crate::vxlan::Vxlan;

/// Pauses between questions while the VM boots, and once its agent answers.
const WHILE_BOOTING: Duration = Duration::from_millis(100);
const ONCE_UP: Duration = Duration::from_millis(20);
/// How long after the agent's answer a packet may still be missing.
const GRACE: Duration = Duration::from_secs(5);
/// When the guest announces itself, from the moment its end is laid.
const ANNOUNCED: [u64; 7] = [0, 5, 20, 100, 400, 1000, 2500];
/// What networks usually carry, in bytes, and how long is looked for the largest of them that passes.
const USUAL: [u32; 11] = [1280, 1330, 1400, 1420, 1450, 1460, 1480, 1492, 1500, 8500, 9000];
const MEASURED_FOR: Duration = Duration::from_millis(600);

/// What is to be verified.
#[derive(Debug)]
pub struct Probe {
    /// This node's address, for error messages.
    pub local: IpAddr,
    /// An address of the pod's primary interface, and its MAC address.
    pub pod: IpAddr,
    /// The interface's MAC address.
    pub mac: MacAddr,
    /// The MTU the pod was promised, in bytes.
    pub mtu: u32,
    /// Whose guest it is.
    pub guest: GuestKind,
    /// Answered when the guest has laid its end for sure; dropped, it counts as answered.
    pub guest_up: oneshot::Receiver<()>,
}

/// Whose guest a VM has, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestKind {
    /// Ours, which announces itself.
    Ours,
    /// Perhaps a stock one, which does not.
    Unknown,
}

/// A network that carries less than a pod's MTU needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooSmall {
    /// Which way.
    pub way: Way,
    /// The MTU the pod was promised.
    pub promised: u32,
    /// What the tunnel adds.
    pub overhead: u32,
    /// The largest packet seen to pass, tunnel headers included; `None` when that is not known.
    pub carried: Option<u32>,
    /// This node's end.
    pub local: IpAddr,
    /// The VM.
    pub remote: IpAddr,
}

/// One of the two directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From this node to the VM.
    ToVm,
    /// From the VM to this node.
    FromVm,
}

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { way, promised, overhead, carried, local, remote } = self;
        let (from, to) = match way {
            Way::ToVm => (format!("this node ({local})"), format!("the VM ({remote})")),
            Way::FromVm => (format!("the VM ({remote})"), format!("this node ({local})")),
        };
        let needed = promised + overhead;
        write!(
            f,
            "the network from {from} to {to} does not carry packets of {needed} bytes, which the pod's MTU of "
        )?;
        write!(f, "{promised} needs (the tunnel adds {overhead}); ")?;
        match carried {
            Some(carried) => {
                write!(f, "it carries {carried}, enough for an MTU of {}", carried.saturating_sub(*overhead))?
            }
            None => f.write_str("smaller ones pass")?,
        }
        f.write_str(
            ": compare the MTU of the node's interface, of the VM's and of everything between (peering, gateways, VPN), \
             and set the smallest on the node's interface",
        )
    }
}

/// The worker's part; see [`crate::Tunnel::verify`].
pub(crate) async fn verify(netns: &Netns, spec: &TunnelSpec, probe: Probe) -> Result<(), TunnelError> {
    let mut line = match Line::open(netns, spec, &probe).await {
        Ok(line) => line,
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(
                error,
                "the network to the VM cannot be probed: whether it carries full packets is not known"
            );
            return Ok(());
        }
    };
    let Probe { mut guest_up, mtu, guest: kind, .. } = probe;
    let (mut seen, mut up) = (Seen::default(), None::<Instant>);
    let judge = |seen: &Seen, up: Option<Instant>| {
        let guest = match up.map(|up| up.elapsed()) {
            None => Guest::Booting,
            Some(since) if since < GRACE => Guest::Up,
            Some(_) => Guest::LongUp,
        };
        verdict(seen, mtu, guest, kind)
    };
    loop {
        for size in [SMALL, mtu] {
            if seen.answered < Some(size) && line.ask(size).await == Sent::TooLarge {
                return Err(line.too_small(Way::ToVm, line.own_mtu().await));
            }
        }
        let pause = Instant::now() + if up.is_some() { ONCE_UP } else { WHILE_BOOTING };
        while judge(&seen, up) == Verdict::Wait {
            tokio::select! {
                biased;
                _ = &mut guest_up, if up.is_none() => { up = Some(Instant::now()); break; }
                () = sleep_until(pause) => break,
                heard = line.hear() => seen.note(heard),
            }
        }
        match judge(&seen, up) {
            Verdict::Wait => {}
            known => return line.conclude(known, &seen).await,
        }
    }
}

/// The guest's part: small and full packets towards the worker, with its own MTU.
pub(crate) async fn announce(
    worker: IpAddr,
    vxlan: &Vxlan,
    interface: &PodInterface,
) -> Result<(), TunnelError> {
    let failed = |source| TunnelError::Kernel { step: format!("send to {worker}"), source };
    let socket = whole_packets(vxlan.local, (worker, vxlan.port).into()).await.map_err(failed)?;
    let mut before = 0;
    for at in ANNOUNCED {
        sleep(Duration::from_millis(at - before)).await;
        before = at;
        for size in [SMALL, interface.mtu] {
            // A full one that is refused here is not seen by the worker, which says so.
            drop(socket.send(&frame::announcement(vxlan.vni, interface.mac, size)).await);
        }
    }
    Ok(())
}

/// A UDP socket whose packets leave in one piece or not at all, from the tunnel's own address: the other end drops those of any other.
async fn whole_packets(local: Option<IpAddr>, remote: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: IpAddr = match remote.ip() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((local.unwrap_or(any), 0)).await?;
    match remote.ip() {
        IpAddr::V4(_) => never_in_pieces(&socket, (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER))?,
        IpAddr::V6(_) => never_in_pieces(&socket, (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER))?,
    }
    socket.connect(remote).await?;
    Ok(socket)
}

#[expect(unsafe_code, reason = "tokio leaves it to the caller that the descriptor stays open")]
fn ear(socket: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by the value that is made of it, and closed with it.
    unsafe { AsyncFd::register(socket) }.map_err(Into::into)
}

/// Sets the option to "probe": whole packets only, and whatever the kernel has heard of the path's MTU.
#[expect(unsafe_code, reason = "neither std nor nix has a wrapper for this option")]
fn never_in_pieces(socket: &UdpSocket, (level, option): (i32, i32)) -> std::io::Result<()> {
    // The same number for both families.
    let value = libc::IP_PMTUDISC_PROBE;
    let length = u32::try_from(size_of_val(&value)).unwrap_or_default();
    // SAFETY: the socket is open for the whole call, and `value` outlives it and has the length given.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    Errno::result(set).map(drop).map_err(Into::into)
}

#[derive(Debug, PartialEq, Eq)]
enum Sent {
    /// It left, or something passing was in the way, such as a VM without an address yet.
    Perhaps,
    /// This node's own interface is too small for it.
    TooLarge,
}

/// The worker's socket towards the VM, and its ear in the pod's namespace.
struct Line {
    socket: UdpSocket,
    tap: AsyncFd<OwnedFd>,
    question: Question,
    overhead: u32,
    promised: u32,
    local: IpAddr,
    remote: IpAddr,
    port: u16,
}

impl Line {
    async fn open(netns: &Netns, spec: &TunnelSpec, probe: &Probe) -> Result<Self, TunnelError> {
        let failed = |source| TunnelError::Kernel { step: "open the probe's sockets".to_owned(), source };
        let socket = whole_packets(spec.local, (spec.remote, spec.port).into()).await.map_err(failed)?;
        let tap = ear(netns.packet_socket().await?).map_err(failed)?;
        Ok(Self {
            socket,
            tap,
            question: Question { vni: spec.vni, pod: probe.pod, mac: probe.mac },
            overhead: vxlan_overhead(spec.remote),
            promised: probe.mtu,
            local: probe.local,
            remote: spec.remote,
            port: spec.port,
        })
    }

    /// Asks the guest with a packet as large as the pod's with this MTU.
    async fn ask(&self, mtu: u32) -> Sent {
        match self.socket.send(&self.question.packet(mtu)).await {
            Err(e) if e.raw_os_error() == Some(Errno::EMSGSIZE as i32) => Sent::TooLarge,
            _ => Sent::Perhaps,
        }
    }

    /// The next frame that has to do with us.
    async fn hear(&mut self) -> frame::Heard {
        let mut start = [0_u8; frame::LOOKED_AT];
        loop {
            let read = self.tap.readable().await;
            let Ok(mut ready) = read else {
                std::future::pending::<()>().await;
                continue;
            };
            let got = ready.try_io(|tap| Ok(recv(tap.as_raw_fd(), &mut start, MsgFlags::empty())?));
            let Ok(Ok(length)) = got else { continue };
            if let Some(heard) = frame::heard(start.get(..length).unwrap_or_default(), self.question.mac) {
                return heard;
            }
        }
    }

    /// The largest usual packet the guest answers, tunnel headers included.
    async fn measure(&mut self) -> Option<u32> {
        let until = Instant::now() + MEASURED_FOR;
        let mut largest = None;
        while Instant::now() < until {
            for size in USUAL.iter().filter(|size| **size < self.promised + self.overhead) {
                self.ask(size.saturating_sub(self.overhead)).await;
            }
            let pause = Instant::now() + 4 * ONCE_UP;
            loop {
                tokio::select! {
                    biased;
                    () = sleep_until(pause) => break,
                    heard = self.hear() => if let frame::Heard::Answer(mtu) = heard {
                        largest = largest.max(Some(mtu + self.overhead).filter(|_| mtu > SMALL));
                    },
                }
            }
        }
        largest
    }

    /// What this node's own interface carries.
    async fn own_mtu(&self) -> Option<u32> {
        let node = crate::kernel::Rtnl::here().ok()?;
        let towards = node.towards(self.remote).await.ok()?;
        node.link_at(towards.link).await.ok()?.map(|link| link.mtu)
    }

    /// What a verdict that is not "wait" comes to.
    async fn conclude(&mut self, verdict: Verdict, seen: &Seen) -> Result<(), TunnelError> {
        match verdict {
            Verdict::Wait | Verdict::Good => Ok(()),
            Verdict::GoodOneWay => {
                tracing::info!(
                    mtu = self.promised,
                    "the guest does not announce itself, so only the way to it is known to carry full packets"
                );
                Ok(())
            }
            Verdict::TooSmall(Way::ToVm) => {
                let carried = self.measure().await;
                Err(self.too_small(Way::ToVm, carried))
            }
            Verdict::TooSmall(Way::FromVm) => {
                let carried = seen.announced.filter(|size| *size > SMALL).map(|size| size + self.overhead);
                Err(self.too_small(Way::FromVm, carried))
            }
            Verdict::Silent => Err(self.silent()),
        }
    }

    fn too_small(&self, way: Way, carried: Option<u32>) -> TunnelError {
        let (promised, overhead) = (self.promised, self.overhead);
        let (local, remote) = (self.local, self.remote);
        TunnelError::PathMtu(TooSmall { way, promised, overhead, carried, local, remote })
    }

    fn silent(&self) -> TunnelError {
        TunnelError::Silent { local: self.local, remote: self.remote, port: self.port }
    }
}
