//! ttrpc frames from the shim, on their way through the guest's end to the agent.
//!
//! Every frame arrives as it was sent, but requests that [`peerpods_agentlink::rewrite`] changes, and those are whole frames of the same stream,
//! kind and flags. It does not matter in which pieces the bytes come. A header that ttrpc does not allow ends the connection, and so
//! does an end inside a frame; whatever was whole before has arrived. A frame header is written as it was read. Memory follows the bytes that
//! came, not what a header announces.

use peerpods_agentlink::frame::{HEADER_LEN, Header, Kind, MAX_PAYLOAD};
use peerpods_agentlink::fuzzing::{forward_frames, forwarded_header};
use peerpods_agentlink::rewrite::{Verdict, inspect, rewrite};

use super::{PROTOBUF_RESERVES, Target};
use super::rewrite::{alike, parse};
use crate::input::{Input, Pieces, at_once};

/// The target.
pub const TARGET: Target =
    Target { name: "frames", check, max_len: 1280, memory: PROTOBUF_RESERVES + (1 << 18), memory_per_byte: 64 };

const NETNS: &str = "/run/netns/podns";

fn check(data: &[u8]) {
    let mut input = Input(data);
    let sizes = input.sizes();
    let stream = input.rest();
    let mut out = Vec::new();
    let ended = at_once(forward_frames(Pieces::new(stream, &sizes), &mut out, NETNS));
    let well = arrived(stream, &mut &out[..]);
    assert_eq!(ended.is_ok(), well, "{ended:?}");
}

/// Looks for all of the stream in what arrived, frame by frame; false when its end is a bad one.
fn arrived(mut stream: &[u8], out: &mut &[u8]) -> bool {
    while let Some((head, rest)) = stream.split_first_chunk::<HEADER_LEN>() {
        let Ok(header) = forwarded_header(head) else { break };
        assert_eq!(header.emit(), *head);
        let total = header.payload_len();
        let Some((payload, after)) = rest.split_at_checked(total) else {
            // What may pass does so while it comes; what may have to be changed waits to be whole.
            let passes = header.kind != Kind::Request || passes_early(rest, total);
            expect(out, if passes { stream } else { &[] });
            assert!(out.is_empty(), "more arrived than was sent");
            return false;
        };
        let is_request = header.kind == Kind::Request;
        match rewrite(payload, NETNS).filter(|_| is_request && !passes_early(payload, total)) {
            Some(changed) => {
                let length = u32::try_from(changed.len()).unwrap();
                expect(out, &Header { length, ..header }.emit());
                let (came, left) = out.split_at_checked(changed.len()).unwrap();
                assert!(alike(&parse(came), &parse(&changed)), "another request arrived");
                *out = left;
            }
            None => {
                expect(out, head);
                expect(out, payload);
            }
        }
        stream = after;
    }
    assert!(out.is_empty(), "more arrived than was sent");
    stream.is_empty()
}

fn expect(out: &mut &[u8], bytes: &[u8]) {
    *out = out.strip_prefix(bytes).expect("other bytes arrived");
}

/// Whether a beginning of the payload is enough to let it pass. One that is too long for the agent passes: the agent refuses it.
fn passes_early(payload: &[u8], total: usize) -> bool {
    if total > MAX_PAYLOAD {
        return true;
    }
    let decided = (0..=payload.len().min(600))
        .filter_map(|seen| payload.get(..seen))
        .map(|seen| inspect(seen, total))
        .find(|verdict| *verdict != Verdict::More);
    decided == Some(Verdict::Pass)
}
