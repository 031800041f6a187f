//! The table cell by cell, and a model of one sandbox: random requests, driver progress and crashes against a provider that is slow
//! and knows no idempotency, so that only the table stands between us and a second VM.

use proptest::prelude::*;

use super::{Decision, Event, Reason, Request, State, decide, next};

const STATES: [State; 6] =
    [State::None, State::Created, State::Starting, State::Running, State::Stopping, State::Gone];

#[test]
fn the_table_is_the_one_of_the_design() {
    use Decision::{CancelAndQueue, Deny, Done, Join, Queue, SameAnswer};
    let rows = [
        (Request::Create, [Queue, SameAnswer, SameAnswer, SameAnswer, Deny(Reason::Stopping), Queue]),
        (
            Request::Start,
            [Deny(Reason::Unknown), Queue, Join, Done, Deny(Reason::Stopping), Deny(Reason::Gone)],
        ),
        (Request::Stop, [Done, Queue, CancelAndQueue, Queue, Join, Done]),
    ];
    for (request, cells) in rows {
        for (state, cell) in STATES.into_iter().zip(cells) {
            assert_eq!(decide(state, request), cell, "{request:?} when {state}");
        }
    }
}

#[test]
fn a_start_that_ends_well_after_its_stop_does_not_bring_the_sandbox_back() {
    let stopping = next(State::Starting, Event::Accepted(Request::Stop));
    assert_eq!(stopping, State::Stopping);
    assert_eq!(next(stopping, Event::Started), State::Stopping);
    assert_eq!(next(State::Gone, Event::Started), State::Gone);
}

#[test]
fn a_confirmation_that_comes_late_does_not_touch_a_sandbox_made_anew() {
    for state in [State::None, State::Created, State::Starting, State::Running] {
        assert_eq!(next(state, Event::DeletionConfirmed), state);
        assert_eq!(next(state, Event::StartFailed) == state, state != State::Starting);
    }
}

#[test]
fn a_crash_ends_a_start_in_flight_and_spares_what_runs() {
    assert_eq!(next(State::Starting, Event::DaemonRestarted), State::Stopping);
    assert_eq!(next(State::Created, Event::DaemonRestarted), State::Created);
    assert_eq!(next(State::Running, Event::DaemonRestarted), State::Running);
    assert_eq!(next(State::Stopping, Event::DaemonRestarted), State::Stopping);
}

#[test]
fn every_denial_is_a_sentence_that_says_what_to_do() {
    for reason in [Reason::Unknown, Reason::Stopping, Reason::Gone] {
        assert!(reason.to_string().contains("sandbox"), "{reason}");
        assert!(reason.to_string().contains("CreateVM") || reason.to_string().contains("make a new"));
    }
}

/// One thing that can happen next.
#[derive(Debug, Clone, Copy)]
enum Op {
    /// A caller, or the service itself.
    Ask(Request),
    /// The driver of a start sends its create call, if it has not yet.
    SendCreate,
    /// A create call that was sent makes its VM, however late.
    CreateLands,
    /// The driver sees the agent answer.
    AgentAnswers,
    /// The driver gives up.
    StartFails,
    /// The driver of a stop gets the provider's confirmation.
    DeletionConfirmed,
    /// `kill -9` and a new start.
    Crash,
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => Just(Op::Ask(Request::Create)),
        3 => Just(Op::Ask(Request::Start)),
        2 => Just(Op::Ask(Request::Stop)),
        3 => Just(Op::SendCreate),
        3 => Just(Op::CreateLands),
        2 => Just(Op::AgentAnswers),
        1 => Just(Op::StartFails),
        2 => Just(Op::DeletionConfirmed),
        1 => Just(Op::Crash),
    ]
}

/// A sandbox, its driver and its cloud.
#[derive(Debug, Default)]
struct World {
    state: State,
    /// VMs that exist.
    vms: u32,
    /// Create calls on their way.
    on_their_way: u32,
    /// The start that runs now has sent its call: a driver does so once a start.
    sent: bool,
    /// A Stop was taken since the last Create, and the sandbox has not gone since.
    stop_owed: bool,
}

impl World {
    fn happen(&mut self, event: Event) {
        self.state = next(self.state, event);
    }

    fn ask(&mut self, request: Request) -> Decision {
        let decision = decide(self.state, request);
        self.happen(Event::Accepted(request));
        if decision.is_work() {
            self.sent &= request != Request::Start;
            self.stop_owed = request == Request::Stop;
        }
        decision
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Ask(request) => {
                self.ask(request);
            }
            Op::SendCreate if self.state == State::Starting && !self.sent => {
                self.sent = true;
                self.on_their_way += 1;
            }
            Op::CreateLands if self.on_their_way > 0 => {
                self.on_their_way -= 1;
                self.vms += 1;
            }
            Op::AgentAnswers if self.vms > 0 => self.happen(Event::Started),
            Op::StartFails => self.happen(Event::StartFailed),
            Op::DeletionConfirmed if self.state == State::Stopping => self.confirm(),
            Op::Crash => self.happen(Event::DaemonRestarted),
            Op::SendCreate | Op::CreateLands | Op::AgentAnswers | Op::DeletionConfirmed => {}
        }
        if self.state == State::Gone {
            self.stop_owed = false;
        }
    }

    /// "Confirmed" means that nothing is there and nothing is still coming.
    fn confirm(&mut self) {
        self.vms = 0;
        self.on_their_way = 0;
        self.happen(Event::DeletionConfirmed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn there_are_never_two_vms_and_never_one_that_no_state_accounts_for(ops in prop::collection::vec(any_op(), 0..60)) {
        let mut world = World::default();
        for op in ops {
            world.step(op);
            prop_assert!(world.vms + world.on_their_way <= 1, "{op:?} led to {world:?}");
            let may_have_one = matches!(world.state, State::Starting | State::Running | State::Stopping);
            prop_assert!(may_have_one || world.vms + world.on_their_way == 0, "{op:?} leaked: {world:?}");
        }
    }

    #[test]
    fn stop_is_never_denied_and_always_leads_to_gone(
        before in prop::collection::vec(any_op(), 0..40),
        after in prop::collection::vec(any_op(), 0..40),
    ) {
        let mut world = World::default();
        before.into_iter().for_each(|op| world.step(op));
        let decision = world.ask(Request::Stop);
        prop_assert!(!matches!(decision, Decision::Deny(_)), "{decision:?}");
        for op in after {
            let owed = world.stop_owed;
            world.step(op);
            prop_assert!(
                !owed || matches!(world.state, State::Stopping | State::Gone),
                "{op:?} undid a Stop: {world:?}"
            );
        }
        world.ask(Request::Stop);
        if world.state == State::Stopping {
            world.step(Op::DeletionConfirmed);
        }
        prop_assert!(matches!(world.state, State::None | State::Gone), "{world:?}");
        prop_assert_eq!(world.vms + world.on_their_way, 0);
    }

    #[test]
    fn after_a_crash_a_start_in_flight_ends_in_deletion_and_what_runs_stays(
        before in prop::collection::vec(any_op(), 0..40),
        after in prop::collection::vec(any_op(), 0..10),
    ) {
        let mut world = World::default();
        before.into_iter().for_each(|op| world.step(op));
        let (state, vms) = (world.state, world.vms);
        world.step(Op::Crash);
        match state {
            State::Starting => {
                prop_assert_eq!(world.state, State::Stopping);
                for op in after {
                    prop_assert!(matches!(world.state, State::Stopping | State::Gone));
                    world.step(op);
                    if world.state == State::Gone { break; }
                }
            }
            State::Running => {
                prop_assert_eq!(world.state, State::Running);
                prop_assert_eq!(world.vms, vms);
            }
            _ => prop_assert_ne!(world.state, State::Starting),
        }
    }

    #[test]
    fn a_repeated_request_is_neither_done_twice_nor_answered_differently(
        ops in prop::collection::vec(any_op(), 0..60),
        request in prop_oneof![Just(Request::Create), Just(Request::Start), Just(Request::Stop)],
    ) {
        let mut world = World::default();
        ops.into_iter().for_each(|op| world.step(op));
        let first = world.ask(request);
        for _ in 0..3 {
            let state = world.state;
            let again = world.ask(request);
            prop_assert!(!again.is_work(), "{request:?} was queued twice");
            prop_assert_eq!(world.state, state);
            match first {
                Decision::Deny(reason) => prop_assert_eq!(again, Decision::Deny(reason)),
                _ => prop_assert!(!matches!(again, Decision::Deny(_)), "{first:?} became {again:?}"),
            }
        }
    }

    #[test]
    fn a_wait_that_was_joined_ends_for_all_alike(ops in prop::collection::vec(any_op(), 0..60)) {
        // Who joins a start gets that start's own end, so no state but its end may follow Starting.
        let mut world = World::default();
        for op in ops {
            let before = world.state;
            world.step(op);
            if before == State::Starting {
                prop_assert!(matches!(world.state, State::Starting | State::Running | State::Stopping));
            }
        }
    }
}
