//! What an agent answers when it is asked whether it serves.
//!
//! Only a response frame of our stream with a status of zero and a health of SERVING is a yes. Whatever else it says is an error in few words.

use peerpods_agentlink::frame::{HEADER_LEN, Header, Kind};
use peerpods_agentlink::fuzzing::health;
use peerpods_proto::ttrpc::envelope::Response;
use peerpods_proto::ttrpc::health::HealthCheckResponse;
use protobuf::Message;

use super::{PROTOBUF_RESERVES, Target};
use crate::input::{Input, Pieces, at_once};

/// The target.
pub const TARGET: Target =
    Target { name: "agent_health", check, max_len: 256, memory: PROTOBUF_RESERVES + (1 << 17), memory_per_byte: 256 };

fn check(data: &[u8]) {
    let mut input = Input(data);
    let sizes = input.sizes();
    let answer = input.rest();
    let serves = at_once(health(&mut Pieces::new(answer, &sizes)));
    assert_eq!(serves.is_ok(), says_yes(answer).is_some(), "{serves:?}");
    if let Err(error) = serves {
        assert!(error.chars().count() < 200 * 10 + 100, "{} characters of error", error.len());
    }
}

fn says_yes(answer: &[u8]) -> Option<()> {
    let (head, rest) = answer.split_first_chunk::<HEADER_LEN>()?;
    let header = Header::parse(head).ok().filter(|header| header.kind == Kind::Response && header.stream == 1)?;
    let response = Response::parse_from_bytes(rest.get(..header.payload_len())?).ok()?;
    let health = HealthCheckResponse::parse_from_bytes(&response.payload).ok()?;
    (response.status.code == 0 && health.status.value() == 1).then_some(())
}
