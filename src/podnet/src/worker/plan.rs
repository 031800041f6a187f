//! What has to be done for a tunnel to be there, or to be gone. Pure.

use std::fmt;

use super::DEVICE;
use crate::kernel::tc::{EVERY_PROTOCOL, Filter, Qdisc, Received};
use crate::tunnel::TunnelSpec;
use crate::vxlan::{Found, OVERHEAD, Vxlan};

/// Our first filter's priority: the first that is looked at, so that nothing can take frames away from the pod.
pub(super) const PRIORITY: u16 = 1;
/// The redirection's on our own device, where the first filter drops what a pod is kept from.
const AFTER_BLOCK: u16 = 2;
/// The kernel's default for Ethernet devices; a smaller one would gain nothing.
const MTU_DEFAULT: u32 = 1500;
/// The largest MTU the kernel gives a VXLAN device.
const MTU_LARGEST: u32 = 65535 - OVERHEAD;

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
    AddRedirect(End),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pod => "the pod interface",
            Self::Device => DEVICE,
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoveDevice { .. } => write!(f, "remove {DEVICE}"),
            Self::CreateDevice { vxlan, .. } => write!(f, "create {DEVICE} (VNI {})", vxlan.vni),
            Self::SetMtu { mtu } => write!(f, "set the MTU of {DEVICE} to {mtu}"),
            Self::SetUp => write!(f, "set {DEVICE} up"),
            Self::AddQdisc(end) => write!(f, "add an ingress qdisc to {end}"),
            Self::RemoveQdisc(end) => write!(f, "remove the ingress qdisc of {end}"),
            Self::RemoveFilter(end, _) => write!(f, "remove a filter of {end}"),
            Self::AddBlock => f.write_str("block what the pod is kept from"),
            Self::AddRedirect(end) => write!(f, "redirect {end} to {}", end.other()),
        }
    }
}

/// The steps from what is there to a whole tunnel; none when it is whole. `block` is the program that drops what the pod is kept from.
pub(super) fn setup(state: &State, spec: &TunnelSpec, block: &[u8]) -> Vec<Step> {
    let Some(pod) = &state.pod else { return Vec::new() };
    let wanted = Vxlan { vni: spec.vni, port: spec.port, remote: Some(spec.remote), learning: false };
    let mtu = pod.mtu.clamp(MTU_DEFAULT, MTU_LARGEST);
    let mut steps = Vec::new();
    let kept = state.device.as_ref().filter(|d| d.vxlan == wanted && d.underlay_at_home);
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
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: u32 = 2;
    const MADE: u32 = 7;

    fn spec() -> TunnelSpec {
        TunnelSpec {
            vni: 555_000,
            port: 9000,
            remote: "10.0.0.2".parse().unwrap(),
            pod_interface: "eth0".to_owned(),
        }
    }

    fn wanted() -> Vxlan {
        Vxlan { vni: 555_000, port: 9000, remote: Some("10.0.0.2".parse().unwrap()), learning: false }
    }

    const BLOCK: &[u8] = &[6; 8];

    fn redirect_to(link: u32) -> Filter {
        Filter {
            priority: PRIORITY,
            protocol: EVERY_PROTOCOL,
            kind: "u32".to_owned(),
            redirect: Some(link),
            program: None,
        }
    }

    fn redirected(link: u32) -> Received {
        Received { qdisc: Some(Qdisc::Ingress), filters: vec![redirect_to(link)] }
    }

    fn block(program: &[u8]) -> Filter {
        Filter { kind: "bpf".to_owned(), redirect: None, program: Some(program.to_vec()), ..redirect_to(0) }
    }

    fn later(filter: Filter) -> Filter {
        Filter { priority: AFTER_BLOCK, ..filter }
    }

    fn from_device() -> Received {
        Received { qdisc: Some(Qdisc::Ingress), filters: vec![block(BLOCK), later(redirect_to(POD))] }
    }

    fn bare(mtu: u32) -> State {
        State {
            pod: Some(Side { link: POD, mtu, received: Received::default() }),
            device: None,
            device_received: Received::default(),
        }
    }

    fn whole() -> State {
        let found =
            Found { index: MADE, vxlan: wanted(), underlay_at_home: true, mtu: 1500, mac: None, up: true };
        State {
            pod: Some(Side { link: POD, mtu: 1450, received: redirected(MADE) }),
            device: Some(found),
            device_received: from_device(),
        }
    }

    fn changed(change: impl FnOnce(&mut Side, &mut Found, &mut Received)) -> Vec<Step> {
        let mut state = whole();
        let (pod, device) = (state.pod.as_mut().unwrap(), state.device.as_mut().unwrap());
        change(pod, device, &mut state.device_received);
        setup(&state, &spec(), BLOCK)
    }

    #[test]
    fn a_whole_tunnel_needs_nothing() {
        assert_eq!(setup(&whole(), &spec(), BLOCK), []);
    }

    #[test]
    fn a_bare_namespace_gets_device_and_both_redirections() {
        let all = [
            Step::CreateDevice { vxlan: wanted(), mtu: 1500 },
            Step::SetUp,
            Step::AddQdisc(End::Device),
            Step::AddBlock,
            Step::AddRedirect(End::Device),
            Step::AddQdisc(End::Pod),
            Step::AddRedirect(End::Pod),
        ];
        assert_eq!(setup(&bare(1450), &spec(), BLOCK), all);
    }

    #[test]
    fn the_device_never_restricts_a_pod_with_jumbo_frames() {
        let mtu_for = |pod| match setup(&bare(pod), &spec(), BLOCK).remove(0) {
            Step::CreateDevice { mtu, .. } => mtu,
            other => panic!("{other:?}"),
        };
        assert_eq!(mtu_for(9001), 9001);
        assert_eq!(mtu_for(65535), 65485);
        assert_eq!(changed(|pod, _, _| pod.mtu = 9001), [Step::SetMtu { mtu: 9001 }]);
    }

    #[test]
    fn any_other_parameter_replaces_the_device_and_both_redirections() {
        let all = [
            Step::RemoveDevice { link: MADE },
            Step::CreateDevice { vxlan: wanted(), mtu: 1500 },
            Step::SetUp,
            Step::AddQdisc(End::Device),
            Step::AddBlock,
            Step::AddRedirect(End::Device),
            Step::RemoveFilter(End::Pod, redirect_to(MADE)),
            Step::AddRedirect(End::Pod),
        ];
        assert_eq!(changed(|_, d, _| d.vxlan.vni = 1), all);
        assert_eq!(changed(|_, d, _| d.vxlan.port = 4789), all);
        assert_eq!(changed(|_, d, _| d.vxlan.remote = Some("10.0.0.3".parse().unwrap())), all);
        assert_eq!(changed(|_, d, _| d.vxlan.learning = true), all);
        assert_eq!(changed(|_, d, _| d.underlay_at_home = false), all);
    }

    #[test]
    fn each_missing_piece_is_put_back_and_nothing_else() {
        assert_eq!(changed(|_, d, _| d.up = false), [Step::SetUp]);
        assert_eq!(changed(|p, _, _| p.received.filters.clear()), [Step::AddRedirect(End::Pod)]);
        let at_device = [Step::AddBlock, Step::AddRedirect(End::Device)];
        assert_eq!(changed(|_, _, r| r.filters.clear()), at_device);
        assert_eq!(changed(|_, _, r| drop(r.filters.remove(0))), [Step::AddBlock]);
        assert_eq!(changed(|_, _, r| drop(r.filters.pop())), [Step::AddRedirect(End::Device)]);
        let both = [Step::AddQdisc(End::Pod), Step::AddRedirect(End::Pod)];
        assert_eq!(changed(|p, _, _| p.received = Received::default()), both);
    }

    #[test]
    fn a_filter_to_another_device_is_replaced_and_doubles_are_removed_once() {
        let stale = redirect_to(99);
        let mended = [Step::RemoveFilter(End::Pod, stale.clone()), Step::AddRedirect(End::Pod)];
        assert_eq!(changed(|p, _, _| p.received.filters = vec![stale.clone()]), mended);
        assert_eq!(changed(|p, _, _| p.received.filters = vec![stale.clone(), redirect_to(MADE)]), mended);
    }

    #[test]
    fn what_stands_in_the_blocks_place_goes_only_when_there_is_a_redirection() {
        let older = redirect_to(POD);
        let taken_over =
            [Step::AddRedirect(End::Device), Step::RemoveFilter(End::Device, older.clone()), Step::AddBlock];
        assert_eq!(changed(|_, _, r| r.filters = vec![older.clone()]), taken_over);
        let other = block(&[7; 8]);
        let replaced = [Step::RemoveFilter(End::Device, other.clone()), Step::AddBlock];
        assert_eq!(changed(|_, _, r| r.filters[0] = other.clone()), replaced);
    }

    #[test]
    fn the_filters_of_others_stay_at_setup_and_at_teardown() {
        let foreign = Filter { priority: 50, ..redirect_to(5) };
        assert_eq!(changed(|p, _, _| p.received.filters.push(foreign.clone())), []);
        let mut state = whole();
        state.pod.as_mut().unwrap().received.filters.push(foreign);
        let steps = [Step::RemoveFilter(End::Pod, redirect_to(MADE)), Step::RemoveDevice { link: MADE }];
        assert_eq!(teardown(&state), steps);
    }

    #[test]
    fn a_clsact_qdisc_is_used_and_not_removed() {
        assert_eq!(changed(|p, _, _| p.received.qdisc = Some(Qdisc::Clsact)), []);
        let mut state = whole();
        state.pod.as_mut().unwrap().received.qdisc = Some(Qdisc::Clsact);
        assert_eq!(teardown(&state)[0], Step::RemoveFilter(End::Pod, redirect_to(MADE)));
    }

    #[test]
    fn teardown_removes_what_there_is_and_is_done_when_there_is_nothing() {
        let all = [Step::RemoveQdisc(End::Pod), Step::RemoveDevice { link: MADE }];
        assert_eq!(teardown(&whole()), all);
        assert_eq!(teardown(&bare(1500)), []);
        assert_eq!(teardown(&State { pod: None, ..bare(1500) }), []);
    }
}
