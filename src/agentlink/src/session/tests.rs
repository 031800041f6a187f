use bytes::{Buf, BytesMut};
use proptest::prelude::*;

use super::engine::{Engine, Heard, Violation};
use super::record::Record;

/// What happens next. Sides are 0 (near) and 1 (far).
#[derive(Debug, Clone)]
enum Step {
    /// So many bytes come from the shim or the agent.
    Say(usize, usize),
    /// That side writes what it has to the connection.
    Emit(usize),
    /// So many bytes of what that side wrote arrive.
    Arrive(usize, usize),
    /// So many bytes are handed on.
    HandOn(usize, usize),
    AckNow(usize),
    Ping(usize),
    /// The shim or the agent will say no more.
    Finish(usize),
    /// The connection is cut; the next greets, and so many bytes are handed on by either side between HELLO and WELCOME.
    Cut(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![1usize..40, 1usize..100_000];
    prop_oneof![
        4 => (0usize..2, size.clone()).prop_map(|(side, n)| Step::Say(side, n)),
        4 => (0usize..2).prop_map(Step::Emit),
        6 => (0usize..2, size.clone()).prop_map(|(side, n)| Step::Arrive(side, n)),
        4 => (0usize..2, size.clone()).prop_map(|(side, n)| Step::HandOn(side, n)),
        1 => (0usize..2).prop_map(Step::AckNow),
        1 => (0usize..2).prop_map(Step::Ping),
        1 => size.prop_map(Step::Cut),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let finish = prop::sample::select(vec![Step::Finish(0), Step::Finish(1)]);
    (
        prop::collection::vec(step(), 0..120),
        prop::collection::vec((any::<prop::sample::Index>(), finish), 0..4),
    )
        .prop_map(|(mut steps, finishes)| {
            for (at, finish) in finishes {
                steps.insert(at.index(steps.len() + 1), finish);
            }
            steps
        })
}

#[derive(Default)]
struct Side {
    engine: Engine,
    said: Vec<u8>,
    finished: bool,
    got: Vec<u8>,
    got_end: bool,
    /// Written and not arrived.
    wire: BytesMut,
    /// Arrived and not understood.
    read: BytesMut,
}

#[derive(Default)]
struct World {
    sides: [Side; 2],
    seed: u8,
}

impl World {
    fn take(&mut self, step: &Step) -> Result<(), Violation> {
        match *step {
            Step::Say(side, n) => {
                let n = n.min(self.sides[side].engine.outgoing.room());
                let bytes: Vec<u8> = (0..n).map(|_| self.next_byte()).collect();
                self.sides[side].engine.outgoing.push(&bytes);
                self.sides[side].said.extend(bytes);
            }
            Step::Emit(side) => {
                let Side { engine, wire, .. } = &mut self.sides[side];
                engine.emit(wire);
            }
            Step::Arrive(side, n) => return self.arrive(side, n),
            Step::HandOn(side, n) => self.hand_on(side, n),
            Step::AckNow(side) => self.sides[side].engine.ack_now(),
            Step::Ping(side) => self.sides[side].engine.ping(),
            Step::Finish(side) => {
                self.sides[side].engine.outgoing.end();
                self.sides[side].finished = true;
            }
            Step::Cut(n) => return self.cut(n),
        }
        Ok(())
    }

    fn next_byte(&mut self) -> u8 {
        self.seed = self.seed.wrapping_mul(141).wrapping_add(47);
        self.seed
    }

    fn arrive(&mut self, from: usize, n: usize) -> Result<(), Violation> {
        let n = n.min(self.sides[from].wire.len());
        let bytes = self.sides[from].wire.split_to(n);
        let Side { engine, read, .. } = &mut self.sides[1 - from];
        read.extend_from_slice(&bytes);
        while let Some((record, length)) = Record::parse(read)? {
            assert_eq!(engine.hear(&record)?, Heard::Sign);
            read.advance(length);
        }
        Ok(())
    }

    fn hand_on(&mut self, side: usize, mut n: usize) {
        let Side { engine, got, got_end, .. } = &mut self.sides[side];
        while n > 0 && !engine.incoming.waiting().is_empty() {
            let part = engine.incoming.waiting();
            let part = &part[..part.len().min(n)];
            got.extend_from_slice(part);
            let length = part.len();
            n -= length;
            engine.incoming.consume(length);
        }
        if engine.incoming.end_waits() {
            assert!(!*got_end, "the end came twice");
            *got_end = true;
            engine.incoming.consume_end();
        }
    }

    fn cut(&mut self, handed_on: usize) -> Result<(), Violation> {
        for side in &mut self.sides {
            side.wire.clear();
            side.read.clear();
        }
        let hello = self.sides[0].engine.incoming.received();
        self.hand_on(0, handed_on);
        self.sides[1].engine.begin(hello)?;
        let welcome = self.sides[1].engine.incoming.received();
        self.hand_on(1, handed_on);
        self.sides[0].engine.begin(welcome)
    }

    fn settle(&mut self) -> Result<(), Violation> {
        for side in [0, 1] {
            self.take(&Step::Finish(side))?;
        }
        for _ in 0..1000 {
            for side in [0, 1] {
                self.take(&Step::AckNow(side))?;
                self.take(&Step::Emit(side))?;
                self.take(&Step::Arrive(side, usize::MAX))?;
                self.take(&Step::HandOn(1 - side, usize::MAX))?;
            }
            if self.sides.iter().all(|side| side.engine.outgoing.end_confirmed()) {
                break;
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_cut_both_sides_get_exactly_what_was_said(steps in steps()) {
        let mut world = World::default();
        world.cut(0).unwrap();
        for step in &steps {
            if matches!(step, Step::Say(side, _) if world.sides[*side].finished) {
                continue;
            }
            world.take(step).unwrap();
            for (got, said) in [(0, 1), (1, 0)] {
                prop_assert!(world.sides[said].said.starts_with(&world.sides[got].got));
                prop_assert!(!world.sides[got].got_end || world.sides[got].got.len() == world.sides[said].said.len());
            }
        }
        world.settle().unwrap();
        let [near, far] = &world.sides;
        prop_assert!(near.got == far.said && far.got == near.said);
        prop_assert!(near.got_end && far.got_end);
        prop_assert!(near.engine.outgoing.end_confirmed() && far.engine.outgoing.end_confirmed());
    }

    #[test]
    fn a_peer_that_says_anything_breaks_nothing_and_fills_no_memory(
        ours in prop::collection::vec(any::<u8>(), 0..2000),
        claimed in prop_oneof![0u64..3000, any::<u64>()],
        records in prop::collection::vec((1u8..10, prop_oneof![0u64..3000, any::<u64>()], 0usize..20_000), 0..60),
        consume: bool,
    ) {
        let mut engine = Engine::default();
        engine.outgoing.push(&ours);
        let mut out = BytesMut::new();
        engine.emit(&mut out);
        let _ = engine.begin(claimed);
        for (kind, number, length) in records {
            let body = vec![kind; length.clamp(1, 16_384)];
            let position = if number % 2 == 0 { engine.incoming.received() } else { number };
            let record = match kind {
                1..=4 => Record::Data { position, bytes: &body },
                5 => Record::Ack { consumed: number },
                6 => Record::Ping,
                7 => Record::Pong,
                8 => Record::Fin { position },
                _ => Record::Reset { reason: b"x" },
            };
            let before = engine.incoming.received();
            if engine.hear(&record).is_err() {
                prop_assert_eq!(engine.incoming.received(), before);
            }
            if consume {
                engine.discard();
            }
            prop_assert!(engine.incoming.received() - engine.incoming.consumed() <= super::WINDOW as u64 + 1);
            out.clear();
            engine.emit(&mut out);
            prop_assert!(out.len() < 64 * 1024);
        }
    }
}
