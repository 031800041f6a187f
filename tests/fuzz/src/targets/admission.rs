//! Admission by token: what links say to a guest that waits for its own, and what a guest answers.
//!
//! The input is a history of a gate: claims that are right, that belong to another connection, that are any bytes in any pieces; visits
//! without a claim; time. The gate admits whoever makes the right claim in time and nobody else, nobody but that one after it, and nobody
//! at all once that one has shown that the answer arrived. It says nothing to who claims nothing. A link believes the right answer, on its own
//! connection, and no other bytes; why it does not is said in few words.

use std::io::ErrorKind;
use std::time::Duration;

use peerpods_agentlink::fuzzing::{Admission, VALIDITY};

use super::Target;
use crate::input::{Input, Pieces, in_virtual_time};

/// The target.
pub const TARGET: Target =
    Target { name: "admission", check, max_len: 512, memory: 1 << 16, memory_per_byte: 64 };

/// A claim and a welcome: what it is, and a proof.
const SAID: usize = 33;
const WELCOME: u8 = 2;
const SPENT: [u8; 2] = [3, 1];
const EXPIRED: [u8; 2] = [3, 2];
const WRONG: [u8; 2] = [3, 3];

/// What the gate must be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Claimed(u8),
    Admitted,
    Expired,
}

struct World {
    admission: Admission,
    state: State,
    waited: Duration,
}

fn check(data: &[u8]) {
    in_virtual_time(async {
        let mut world = World {
            admission: Admission::default(),
            state: State::Waiting,
            waited: Duration::ZERO,
        };
        let mut input = Input(data);
        while !input.0.is_empty() {
            world.step(&mut input).await;
        }
    });
}

impl World {
    async fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        let (link, connection) = (what >> 4 & 3, what >> 6);
        match what & 7 {
            0 | 1 => {
                let claim = self.admission.claim(connection).await.unwrap();
                self.claimed(&claim, &[], link, connection).await;
            }
            2 => {
                let claim = self.admission.claim(connection ^ 1).await.unwrap();
                self.claimed(&claim, &[], link, connection).await;
            }
            3 => {
                let sizes = input.sizes();
                self.claimed(input.bytes(SAID), &sizes, link, connection).await;
            }
            4 => {
                let open = matches!(self.state, State::Claimed(_) | State::Admitted);
                assert_eq!(self.admission.is_open(link), open, "{:?}", self.state);
                if self.state == State::Claimed(link) {
                    self.state = State::Admitted;
                }
            }
            5 => self.pass(Duration::from_secs(u64::from(input.byte()))).await,
            _ => self.believed(input.bytes(SAID), connection).await,
        }
    }

    /// Time passes; the guest wipes the token when it is up.
    async fn pass(&mut self, time: Duration) {
        tokio::time::advance(time).await;
        self.waited += time;
        if self.waited >= VALIDITY {
            self.admission.expire().await;
            self.state = match self.state {
                State::Waiting | State::Expired => State::Expired,
                State::Claimed(_) | State::Admitted => State::Admitted,
            };
        }
    }

    async fn claimed(&mut self, said: &[u8], sizes: &[usize], link: u8, connection: u8) {
        let right = said == self.admission.claim(connection).await.unwrap();
        let mut peer = Pieces::new(said, sizes);
        let heard = self.admission.hear(&mut peer, link, connection).await;
        let answer = peer.written;
        match (said, self.state) {
            _ if said.len() < SAID => {
                assert_eq!((heard, answer.len()), (Err(ErrorKind::UnexpectedEof), 0));
            }
            ([first, ..], _) if *first != 1 => {
                assert_eq!((heard, answer.len()), (Err(ErrorKind::InvalidData), 0));
            }
            (_, State::Admitted) => refused(heard, &answer, SPENT),
            (_, State::Claimed(by)) if by != link && right => refused(heard, &answer, SPENT),
            (_, State::Expired) => refused(heard, &answer, EXPIRED),
            _ if !right => refused(heard, &answer, WRONG),
            (_, State::Waiting | State::Claimed(_)) => {
                assert_eq!(heard, Ok(()), "the right claim");
                self.state = State::Claimed(link);
                self.believed(&answer, connection).await;
                let elsewhere = self.admission.answered(&mut answer.as_slice(), connection ^ 1).await;
                assert!(elsewhere.is_err(), "the answer of another connection is believed");
            }
        }
    }

    /// A link gets an answer. It believes no proof but the right one, which only the gate knows how to make.
    async fn believed(&self, answer: &[u8], connection: u8) {
        let told = self.admission.answered(&mut Pieces::new(answer, &[3, 9]), connection).await;
        match (answer, told) {
            ([WELCOME, proof @ ..], Ok(())) => assert_eq!(proof.len(), SAID - 1),
            (_, Err(None)) => assert!(answer.len() < SAID, "a whole answer is no broken connection"),
            (_, Err(Some(reason))) => assert!(reason.len() < 200 && !answer.is_empty(), "{reason}"),
            (answer, Ok(())) => panic!("{answer:?} is believed"),
        }
    }
}

fn refused(heard: Result<(), ErrorKind>, answer: &[u8], with: [u8; 2]) {
    assert_eq!((heard, answer), (Err(ErrorKind::PermissionDenied), &with[..]));
}
