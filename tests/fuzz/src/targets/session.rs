//! Both ends of a resumable session, over connections that are cut again and again.
//!
//! The input is a history: who says, sends, receives, hands on and confirms how much, and when the connection is cut (what is under way is
//! lost, and either end may hand on more between the two greetings). At every moment each side has handed on exactly a beginning of what the
//! other said, never a byte twice, never one too few, the end after the last byte and once. When the cutting stops everything
//! arrives and both ends know it. No honest end is ever accused, and neither keeps more than the window.

use bytes::BytesMut;
use peerpods_agentlink::fuzzing::{End, WINDOW};

use super::Target;
use crate::input::{Input, said_at};

/// The target.
pub const TARGET: Target =
    Target { name: "session", check, max_len: 320, memory: 1 << 20, memory_per_byte: 1 << 17 };

#[derive(Default)]
struct Side {
    end: End,
    said: u64,
    finished: bool,
    got: u64,
    got_end: bool,
    /// Written and not arrived.
    wire: BytesMut,
}

#[derive(Default)]
struct World {
    sides: [Side; 2],
    /// What either side says in all.
    most: u64,
    scratch: Vec<u8>,
}

fn check(data: &[u8]) {
    let mut input = Input(data);
    // Filling the window takes long: few histories may.
    let most = if input.byte() == 255 { WINDOW as u64 + 65_536 } else { 24_576 };
    let mut world = World { most, ..World::default() };
    world.cut(0);
    while !input.0.is_empty() {
        let what = input.byte();
        let side = usize::from(what & 1);
        // Small numbers are common, and the largest fill the window.
        let count = match what >> 5 {
            0..=4 => usize::from(input.byte()),
            5 | 6 => usize::from(input.byte()) << 4,
            _ => usize::from(input.short() & 0x7fff),
        };
        match (what >> 1) & 15 {
            0..=2 => world.say(side, count),
            3..=5 => world.emit(side),
            6..=8 => world.arrive(side, count),
            9..=10 => world.hand_on(side, count),
            11 => world.sides[side].end.ack_now(),
            12 => world.sides[side].end.ping(),
            13 => world.cut(count),
            14 => world.cut_after_hello(side, count),
            _ => world.finish(side, count),
        }
    }
    world.settle();
}

impl World {
    fn say(&mut self, side: usize, count: usize) {
        let Side { end, said, finished, .. } = &mut self.sides[side];
        let count = usize::try_from(self.most.saturating_sub(*said)).unwrap().min(count);
        if !*finished {
            *said += end.say(said_at(side, *said, count)) as u64;
        }
    }

    fn finish(&mut self, side: usize, count: usize) {
        // Rare, or most histories would be over soon.
        if count == 255 {
            self.sides[side].end.finish();
            self.sides[side].finished = true;
        }
    }

    fn emit(&mut self, side: usize) {
        let Side { end, wire, .. } = &mut self.sides[side];
        if wire.len() < WINDOW {
            end.emit(wire);
        }
    }

    fn arrive(&mut self, from: usize, count: usize) {
        let wire = &mut self.sides[from].wire;
        let bytes = wire.split_to(count.min(wire.len()));
        let heard = self.sides[1 - from].end.hear(&bytes);
        assert_eq!(heard, Ok(None), "an honest end is accused");
        let (received, consumed) = self.sides[1 - from].end.received();
        assert!(received - consumed <= WINDOW as u64 + 1, "more is kept than the window");
    }

    fn hand_on(&mut self, side: usize, count: usize) {
        self.scratch.clear();
        let Side { end, got, got_end, .. } = &mut self.sides[side];
        let ends = end.hand_on(count, &mut self.scratch);
        assert!(!*got_end || self.scratch.is_empty(), "bytes after the end");
        let other = 1 - side;
        for part in self.scratch.chunks(1 << 14) {
            assert!(part == said_at(other, *got, part.len()), "bytes lost, twice or changed");
            *got += part.len() as u64;
        }
        if ends {
            assert!(!*got_end, "the end came twice");
            *got_end = true;
        }
        let (got, ended) = (*got, *got_end);
        assert!(got <= self.sides[other].said);
        assert!(!ended || (self.sides[other].finished && got == self.sides[other].said), "the end came early");
    }

    /// The connection is lost and another greets: HELLO says what the near end has, WELCOME what the far end has.
    fn cut(&mut self, between: usize) {
        self.lose();
        let hello = self.sides[0].end.received().0;
        self.hand_on(0, between);
        assert_eq!(self.sides[1].end.begin(hello), Ok(()));
        let welcome = self.sides[1].end.received().0;
        self.hand_on(1, between);
        assert_eq!(self.sides[0].end.begin(welcome), Ok(()));
    }

    /// The same, but the WELCOME and what came with it were lost: the far end took the connection for good and the near end calls again.
    fn cut_after_hello(&mut self, side: usize, count: usize) {
        self.lose();
        let hello = self.sides[0].end.received().0;
        assert_eq!(self.sides[1].end.begin(hello), Ok(()));
        for _ in 0..count % 8 {
            self.emit(1);
        }
        self.hand_on(side, count);
        self.cut(count);
    }

    fn lose(&mut self) {
        for side in &mut self.sides {
            side.wire.clear();
        }
    }

    fn settle(&mut self) {
        for side in [0, 1] {
            self.finish(side, 255);
        }
        for _ in 0..200 {
            for side in [0, 1] {
                self.sides[side].end.ack_now();
                self.emit(side);
                self.arrive(side, usize::MAX);
                self.hand_on(1 - side, usize::MAX);
            }
            if self.sides.iter().all(|side| side.end.is_confirmed()) {
                break;
            }
        }
        for side in [0, 1] {
            assert_eq!(self.sides[side].got, self.sides[1 - side].said, "not everything arrived");
            assert!(self.sides[side].got_end && self.sides[side].end.is_confirmed());
        }
    }
}
