//! Lines between the node daemon and a link process.
//!
//! Requests: whatever a line holds it is understood, is of another version, or is a fault that is told in few words and repeats nothing
//! of the line but an operation's name. A request that was understood is asked again by a line that is understood as the same. Answers are
//! written again as they were read. Lines come out of a stream as they were, whatever the pieces, and none is longer
//! than its bound.

use peerpods_agentlink::fuzzing::{Line, answer, ask, asked, lines};

use super::Target;
use crate::input::{Input, Pieces, at_once};

/// The target.
pub const TARGET: Target =
    Target { name: "control", check, max_len: 1024, memory: 1 << 19, memory_per_byte: 128 };

fn check(data: &[u8]) {
    let mut input = Input(data);
    let sizes = input.sizes();
    let stream = input.rest();
    let (found, ended) = at_once(lines(Pieces::new(stream, &sizes)));
    let mut expected: Vec<&[u8]> = stream.split(|byte| *byte == b'\n').collect();
    let last = expected.pop().unwrap_or_default();
    assert_eq!(ended.is_some(), !last.is_empty(), "{ended:?}");
    assert!(found.iter().map(Vec::as_slice).eq(expected), "other lines than were sent");
    for line in &found {
        request(line);
        reply(line);
    }
    request(last);
    reply(last);
}

fn request(line: &[u8]) {
    let (v, understood) = asked(line);
    assert!((1..=2).contains(&v), "an answer of version {v}, which is not spoken");
    if let Line::Fault(message) = &understood {
        assert!(message.chars().count() <= 40 * 10 + 80, "{} characters of fault", message.len());
    }
    let Some(again) = ask(&understood).unwrap() else { return };
    let again = again.strip_suffix(b"\n").unwrap();
    assert!(!again.contains(&b'\n'));
    match (&understood, asked(again)) {
        (Line::Connect(one), (1 | 2, Line::Connect(other))) => {
            assert_eq!((one.address, &one.server_name, one.deadline), (other.address, &other.server_name, other.deadline));
            assert!(one.guest == other.guest);
            let (one, other) = (&one.identity, &other.identity);
            assert!(one.certificate == other.certificate && one.key == other.key && one.authority == other.authority);
        }
        (Line::Status, (1, Line::Status)) | (Line::Close, (1, Line::Close)) => {}
        (one, other) => panic!("{one:?} was asked and {other:?} was understood"),
    }
}

fn reply(line: &[u8]) {
    let Ok(once) = answer(line) else { return };
    let again = answer(once.strip_suffix(b"\n").unwrap());
    assert_eq!(again.as_deref(), Ok(once.as_slice()), "an answer that is not read as written");
}
