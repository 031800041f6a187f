//! One VXLAN device: what makes two of them the same, and how one is made so that its underlay stays where it should.

use std::net::IpAddr;

use nix::errno::Errno;
use peerpods_podvm::network::MacAddr;

use crate::kernel::{Link, LinkKind, Rtnl, failed, said};
use crate::netns::Netns;
use crate::tunnel::TunnelError;

/// The parameters that have to be the same for a device to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vxlan {
    pub(crate) vni: u32,
    pub(crate) port: u16,
    /// The source address of its packets; `None` leaves it to the routes. The other end takes packets from one address only.
    pub(crate) local: Option<IpAddr>,
    pub(crate) remote: Option<IpAddr>,
    pub(crate) learning: bool,
}

impl Vxlan {
    /// Whether a device found serves as the one wanted. An older program made devices without a source address; they are kept, because
    /// making one anew cuts a running pod off for a moment.
    pub(crate) fn serves_as(&self, wanted: &Self) -> bool {
        let anywhere = |of: &Self| Self { local: None, ..of.clone() };
        let from = self.local.is_none() || wanted.local.is_none() || self.local == wanted.local;
        from && anywhere(self) == anywhere(wanted)
    }
}

/// How a device is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewDevice {
    pub(crate) name: String,
    pub(crate) vxlan: Vxlan,
    pub(crate) mtu: u32,
    /// `None` lets the kernel choose.
    pub(crate) mac: Option<MacAddr>,
}

/// A device found in a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) index: u32,
    pub(crate) vxlan: Vxlan,
    /// Its UDP socket is in the namespace of the tunnel's own end (worker or VM), not in the pod's.
    pub(crate) underlay_at_home: bool,
    pub(crate) mtu: u32,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) up: bool,
    /// The bridge it is a port of.
    pub(crate) controller: Option<u32>,
}

impl Found {
    /// `home`: the id by which the device's namespace knows that of the tunnel's own end. A device of another kind is not ours.
    pub(crate) fn of(link: Link, home: Option<i32>) -> Option<Self> {
        let Link { index, kind, up, mtu, mac, other_netns, controller, .. } = link;
        let LinkKind::Vxlan(vxlan) = kind else { return None };
        let underlay_at_home = other_netns.is_some() && other_netns == home;
        Some(Self { index, vxlan, underlay_at_home, mtu, mac, up, controller })
    }
}

/// Looks for the VXLAN device `name` in the namespace of `inside`. A device of another kind is not ours, and not found.
pub(crate) async fn find(inside: &Rtnl, home: &Netns, name: &str) -> Result<Option<Found>, TunnelError> {
    let Some(link) = inside.link(name).await?.filter(|link| matches!(link.kind, LinkKind::Vxlan(_))) else {
        return Ok(None);
    };
    Ok(Found::of(link, inside.netns_id(home).await?))
}

/// Makes `device` in `inside`, by a request from `home`: the device appears where `inside` is and its UDP socket stays at `home`.
/// Made elsewhere and moved, it would cost an RCU grace period (some 20 ms).
///
/// # Errors
/// [`TunnelError::VniInUse`] when another device of `home` has the VNI and port.
pub(crate) async fn create(
    home: &Rtnl,
    inside: &Netns,
    inside_link: &Rtnl,
    device: &NewDevice,
) -> Result<(), TunnelError> {
    let Vxlan { vni, port, local, remote, learning } = device.vxlan;
    let name = name_at_birth(home, inside_link, device).await?;
    let mut message = rtnetlink::LinkVxlan::new(&name, vni)
        .port(port)
        .learning(learning)
        .mtu(device.mtu)
        .setns_by_fd(inside.raw_fd());
    message = match remote {
        Some(IpAddr::V4(remote)) => message.remote(remote),
        Some(IpAddr::V6(remote)) => message.remote6(remote),
        None => message,
    };
    message = match local {
        Some(IpAddr::V4(local)) => message.local(local),
        Some(IpAddr::V6(local)) => message.local6(local),
        None => message,
    };
    if let Some(MacAddr(mac)) = device.mac {
        message = message.address(mac.to_vec());
    }
    let place = inside.path().display();
    let step = || format!("create the VXLAN device {} in {place}", device.name);
    if let Err(error) = home.add_link(message.build()).await {
        // EEXIST stands for two things: the VNI is taken, or the name is.
        if said(&error, &[Errno::EEXIST]) && inside_link.link(&name).await?.is_none() {
            return Err(TunnelError::VniInUse { vni, port });
        }
        return Err(failed(step())(error));
    }
    match inside_link.link(&name).await? {
        Some(born) if name != device.name => {
            inside_link.rename(born.index, &device.name).await.map_err(failed(step()))
        }
        _ => Ok(()),
    }
}

/// The name to make a device under. Kernels before 6.15 refuse a name that is taken where the *request* comes from, although the
/// device is made elsewhere: a VM's own `eth0` is in the way of its pod's. Such a device is born under another name and renamed,
/// which costs an RCU grace period.
async fn name_at_birth(home: &Rtnl, inside: &Rtnl, device: &NewDevice) -> Result<String, TunnelError> {
    if home.link(&device.name).await?.is_none() {
        return Ok(device.name.clone());
    }
    remove_half_born(inside, device.vxlan.vni).await?;
    Ok(spare_name(device.vxlan.vni))
}

fn spare_name(vni: u32) -> String {
    format!("{SPARE}{vni:x}")
}

/// Begins the spare names.
pub(crate) const SPARE: &str = "ppx";

/// Removes a device that was born under its spare name by a call that was dropped before it could rename it. Ok when there is none.
pub(crate) async fn remove_half_born(inside: &Rtnl, vni: u32) -> Result<(), TunnelError> {
    let name = spare_name(vni);
    match inside.link(&name).await? {
        Some(stale) => inside
            .remove_link(stale.index)
            .await
            .map_err(failed(format!("remove the half-made device {name}"))),
        None => Ok(()),
    }
}
