//! The plan, as tables: what is found, what is wanted, what is done.

use super::*;

const POD: u32 = 2;
const MADE: u32 = 7;
const BRIDGE: u32 = 8;

fn spec() -> TunnelSpec {
    TunnelSpec {
        vni: 555_000,
        port: 9000,
        local: "10.0.0.1".parse().ok(),
        remote: "10.0.0.2".parse().unwrap(),
        pod_interface: "eth0".to_owned(),
        ordinal: 0,
    }
}

fn wanted() -> Vxlan {
    let of = |address: &str| address.parse().ok();
    Vxlan { vni: 555_000, port: 9000, local: of("10.0.0.1"), remote: of("10.0.0.2"), learning: false }
}

const BLOCK: &[u8] = &[6; 8];

fn redirect_to(link: u32) -> Filter {
    Filter {
        priority: PRIORITY,
        protocol: EVERY_PROTOCOL,
        kind: "u32".to_owned(),
        handle: 1,
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
        bridge: None,
        others: false,
    }
}

fn whole() -> State {
    let found = Found {
        index: MADE,
        vxlan: wanted(),
        underlay_at_home: true,
        mtu: 1500,
        mac: None,
        up: true,
        controller: Some(BRIDGE),
    };
    State {
        pod: Some(Side { link: POD, mtu: 1450, received: redirected(MADE) }),
        device: Some(found),
        device_received: from_device(),
        bridge: Some(BRIDGE),
        others: false,
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
        Step::AddBridge,
        Step::JoinBridge,
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
        Step::JoinBridge,
    ];
    assert_eq!(changed(|_, d, _| d.vxlan.vni = 1), all);
    assert_eq!(changed(|_, d, _| d.vxlan.port = 4789), all);
    assert_eq!(changed(|_, d, _| d.vxlan.remote = Some("10.0.0.3".parse().unwrap())), all);
    assert_eq!(changed(|_, d, _| d.vxlan.local = "10.0.0.9".parse().ok()), all);
    assert_eq!(changed(|_, d, _| d.vxlan.learning = true), all);
    assert_eq!(changed(|_, d, _| d.underlay_at_home = false), all);
}

#[test]
fn a_device_of_an_older_program_without_a_source_address_is_kept() {
    assert_eq!(changed(|_, d, _| d.vxlan.local = None), []);
    let unknown = TunnelSpec { local: None, ..spec() };
    assert_eq!(setup(&whole(), &unknown, BLOCK), [], "as one of an older record");
}

#[test]
fn each_missing_piece_is_put_back_and_nothing_else() {
    assert_eq!(changed(|_, d, _| d.up = false), [Step::SetUp]);
    assert_eq!(changed(|_, d, _| d.controller = None), [Step::JoinBridge]);
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
    let replaced = [Step::ReplaceBlock(other.clone())];
    assert_eq!(
        changed(|_, _, r| r.filters[0] = other.clone()),
        replaced,
        "in place: nothing is open meanwhile"
    );
    let foreign = Filter { program: None, ..other };
    let removed = [Step::RemoveFilter(End::Device, foreign.clone()), Step::AddBlock];
    assert_eq!(changed(|_, _, r| r.filters[0] = foreign.clone()), removed);
}

#[test]
fn the_filters_of_others_stay_at_setup_and_at_teardown() {
    let foreign = Filter { priority: 50, ..redirect_to(5) };
    assert_eq!(changed(|p, _, _| p.received.filters.push(foreign.clone())), []);
    let mut state = whole();
    state.pod.as_mut().unwrap().received.filters.push(foreign);
    let gone = [Step::RemoveDevice { link: MADE }, Step::RemoveBridge { link: BRIDGE }];
    let steps = [&[Step::RemoveFilter(End::Pod, redirect_to(MADE))], gone.as_slice()].concat();
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
    let mut all = vec![
        Step::RemoveQdisc(End::Pod),
        Step::RemoveDevice { link: MADE },
        Step::RemoveBridge { link: BRIDGE },
    ];
    assert_eq!(teardown(&whole()), all);
    all.truncate(2);
    assert_eq!(teardown(&State { others: true, ..whole() }), all, "the bridge serves the others");
    assert_eq!(teardown(&bare(1500)), []);
    assert_eq!(teardown(&State { pod: None, ..bare(1500) }), []);
}
