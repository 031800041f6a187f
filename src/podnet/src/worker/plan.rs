//! What has to be done for a tunnel to be there, or to be gone. Pure.

use std::fmt;

use crate::kernel::tc::{EVERY_PROTOCOL, Filter, Qdisc, Received};
use crate::tunnel::TunnelSpec;
use crate::vxlan::{Found, Vxlan};

/// Our first filter's priority: the first that is looked at, so that nothing can take frames away from the pod.
pub(super) const PRIORITY: u16 = 1;
/// The redirection's on our own device, where the first filter drops what a pod is kept from.
const AFTER_BLOCK: u16 = 2;
/// The kernel's default for Ethernet devices; a smaller one would gain nothing.
const MTU_DEFAULT: u32 = 1500;
/// The largest MTU the kernel gives a VXLAN device.
const MTU_LARGEST: u32 = 65535 - 50;

/// One end of the redirection inside the pod's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The pod's interface.
    Pod,
    /// The VXLAN device.
    Device,
}

impl End {
    /// The end it redirects to.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Pod => Self::Device,
            Self::Device => Self::Pod,
        }
    }

    /// The priority of the redirection.
    pub(super) fn priority(self) -> u16 {
        match self {
            Self::Pod => PRIORITY,
            Self::Device => AFTER_BLOCK,
        }
    }
}

/// The pod's interface, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) link: u32,
    pub(super) mtu: u32,
    pub(super) received: Received,
}

/// What was found in the pod's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) pod: Option<Side>,
    pub(super) device: Option<Found>,
    pub(super) device_received: Received,
    /// The bridge of [`super::BRIDGE`].
    pub(super) bridge: Option<u32>,
    /// There are devices of the pod's other interfaces.
    pub(super) others: bool,
}

/// One change. Devices are resolved when it is applied, because some are made on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    RemoveDevice {
        link: u32,
    },
    CreateDevice {
        vxlan: Vxlan,
        mtu: u32,
    },
    SetMtu {
        mtu: u32,
    },
    SetUp,
    AddQdisc(End),
    RemoveQdisc(End),
    RemoveFilter(End, Filter),
    /// What the pod is kept from, at the device.
    AddBlock,
    /// The same in place of another program of ours.
    ReplaceBlock(Filter),
    AddRedirect(End),
    AddBridge,
    JoinBridge,
    RemoveBridge {
        link: u32,
    },
}

impl Step {
    /// It has the kernel load a program.
    pub(super) fn is_block(&self) -> bool {
        matches!(self, Self::AddBlock | Self::ReplaceBlock(_))
    }

    /// The tunnel carries packets without it.
    pub(super) fn is_optional(&self) -> bool {
        matches!(self, Self::AddBridge | Self::JoinBridge)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pod => "the pod interface",
            Self::Device => "the VXLAN device",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoveDevice { .. } => f.write_str("remove the VXLAN device"),
            Self::CreateDevice { vxlan, .. } => write!(f, "create the VXLAN device of VNI {}", vxlan.vni),
            Self::SetMtu { mtu } => write!(f, "set the MTU of the VXLAN device to {mtu}"),
            Self::SetUp => f.write_str("set the VXLAN device up"),
            Self::AddQdisc(end) => write!(f, "add an ingress qdisc to {end}"),
            Self::RemoveQdisc(end) => write!(f, "remove the ingress qdisc of {end}"),
            Self::RemoveFilter(end, _) => write!(f, "remove a filter of {end}"),
            Self::AddBlock => f.write_str("block what the pod is kept from"),
            Self::ReplaceBlock(_) => f.write_str("change what the pod is kept from"),
            Self::AddRedirect(end) => write!(f, "redirect {end} to {}", end.other()),
            Self::AddBridge => f.write_str("make the bridge that has senders told of too large packets"),
            Self::JoinBridge => f.write_str("make the VXLAN device a port of that bridge"),
            Self::RemoveBridge { .. } => f.write_str("remove that bridge"),
        }
    }
}

/// The steps from what is there to a whole tunnel; none when it is whole. `block` is the program that drops what the pod is kept from.
pub(super) fn setup(state: &State, spec: &TunnelSpec, block: &[u8]) -> Vec<Step> {
    let Some(pod) = &state.pod else { return Vec::new() };
    let wanted = Vxlan {
        vni: spec.vni,
        port: spec.port,
        local: spec.local,
        remote: Some(spec.remote),
        learning: false,
    };
    let mtu = pod.mtu.clamp(MTU_DEFAULT, MTU_LARGEST);
    let mut steps = Vec::new();
    let kept = state.device.as_ref().filter(|d| d.vxlan.serves_as(&wanted) && d.underlay_at_home);
    if let Some(other) = state.device.as_ref().filter(|_| kept.is_none()) {
        steps.push(Step::RemoveDevice { link: other.index });
    }
    match kept {
        None => steps.extend([Step::CreateDevice { vxlan: wanted, mtu }, Step::SetUp]),
        Some(device) => {
            steps.extend((device.mtu < mtu).then_some(Step::SetMtu { mtu }));
            steps.extend((!device.up).then_some(Step::SetUp));
        }
    }
    let nothing = Received::default();
    let device_received = if kept.is_some() { &state.device_received } else { &nothing };
    from_device(&mut steps, device_received, pod.link, block);
    redirect(&mut steps, End::Pod, &pod.received, kept.map(|d| d.index));
    steps.extend(state.bridge.is_none().then_some(Step::AddBridge));
    let joined = kept.is_some_and(|d| d.controller.is_some() && d.controller == state.bridge);
    steps.extend((!joined).then_some(Step::JoinBridge));
    steps
}

/// The block comes before the redirection. Where an older program put its redirection in the block's place, that stays until there is
/// another, so that the pod loses no frame.
fn from_device(steps: &mut Vec<Step>, found: &Received, pod: u32, block: &[u8]) {
    if found.qdisc.is_none() {
        steps.extend([Step::AddQdisc(End::Device), Step::AddBlock, Step::AddRedirect(End::Device)]);
        return;
    }
    let first: Vec<&Filter> = found.filters.iter().filter(|f| f.priority == PRIORITY).collect();
    let is_block =
        |f: &Filter| f.protocol == EVERY_PROTOCOL && f.program.as_deref().is_some_and(|p| p == block);
    match first.as_slice() {
        [] => steps.push(Step::AddBlock),
        [only] if is_block(only) => {}
        // Never removed first: the pod would reach everything for a moment.
        [only] if only.protocol == EVERY_PROTOCOL && only.program.is_some() => {
            steps.push(Step::ReplaceBlock((*only).clone()));
        }
        others => {
            redirect(steps, End::Device, found, Some(pod));
            remove(steps, End::Device, others);
            steps.push(Step::AddBlock);
            return;
        }
    }
    redirect(steps, End::Device, found, Some(pod));
}

/// `to` is `None` for a device that is only going to be made: no filter can be right yet.
fn redirect(steps: &mut Vec<Step>, end: End, found: &Received, to: Option<u32>) {
    if found.qdisc.is_none() {
        steps.extend([Step::AddQdisc(end), Step::AddRedirect(end)]);
        return;
    }
    let ours: Vec<&Filter> = found.filters.iter().filter(|f| f.priority == end.priority()).collect();
    if let [only] = ours.as_slice()
        && only.kind == "u32"
        && only.protocol == EVERY_PROTOCOL
        && to.is_some()
        && only.redirect == to
    {
        return;
    }
    remove(steps, end, &ours);
    steps.push(Step::AddRedirect(end));
}

/// Filters of one kind, priority and protocol go together.
fn remove(steps: &mut Vec<Step>, end: End, filters: &[&Filter]) {
    let mut gone: Vec<&Filter> = Vec::new();
    for filter in filters {
        if !gone.iter().any(|g| g.kind == filter.kind && g.protocol == filter.protocol) {
            gone.push(filter);
            steps.push(Step::RemoveFilter(end, (*filter).clone()));
        }
    }
}

/// The steps from what is there to no tunnel.
pub(super) fn teardown(state: &State) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(Side { received, .. }) = &state.pod {
        let (ours, others): (Vec<_>, Vec<_>) = received.filters.iter().partition(|f| f.priority == PRIORITY);
        match received.qdisc {
            // With its qdisc a filter goes as well.
            Some(Qdisc::Ingress) if others.is_empty() => steps.push(Step::RemoveQdisc(End::Pod)),
            Some(_) => steps.extend(ours.into_iter().map(|f| Step::RemoveFilter(End::Pod, f.clone()))),
            None => {}
        }
    }
    // What hangs on the device goes with it.
    steps.extend(state.device.as_ref().map(|d| Step::RemoveDevice { link: d.index }));
    steps.extend(state.bridge.filter(|_| !state.others).map(|link| Step::RemoveBridge { link }));
    steps
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
