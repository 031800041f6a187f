//! The two requests that are changed on their way to the agent.
//!
//! A request is decided by its beginning, and more of it never decides otherwise; 600 bytes are always enough. What is let pass unseen is nothing that would
//! have been changed, unless it says its service or method twice, which no encoder does. A changed request differs
//! from the original in what it was changed for and in nothing else: unknown fields, order and every other value stay. Changing it again
//! changes nothing. It does not grow out of proportion.

use peerpods_agentlink::rewrite::{Verdict, inspect, rewrite};
use peerpods_proto::ttrpc::agent::{CreateContainerRequest, CreateSandboxRequest};
use peerpods_proto::ttrpc::envelope::Request;
use protobuf::{CodedInputStream, Message};

use super::{PROTOBUF_RESERVES, Target};

/// The target.
pub const TARGET: Target =
    Target { name: "rewrite", check, max_len: 640, memory: PROTOBUF_RESERVES + (1 << 16), memory_per_byte: 512 };

const NETNS: &str = "/run/netns/podns";

fn check(data: &[u8]) {
    let decided = decided(data);
    let changed = rewrite(data, NETNS);
    let Some(changed) = changed else { return };
    if decided == Verdict::Pass {
        assert!(names(data) > 2, "a request passed that is to be changed");
        return;
    }
    assert!(changed.len() <= 4 * data.len() + 64, "{} bytes became {}", data.len(), changed.len());
    let (before, after) = (parse::<Request>(data), parse::<Request>(&changed));
    assert!(alike(&after, &parse(&rewrite(&changed, NETNS).unwrap())), "changed twice it is another");
    match before.method.as_str() {
        "CreateContainer" => container(&before.payload, &after.payload),
        "CreateSandbox" => sandbox(&before.payload, &after.payload),
        other => panic!("{other} was changed"),
    }
    assert_eq!(Request { payload: Vec::new(), ..before }, Request { payload: Vec::new(), ..after });
}

/// The first decision, by ever longer beginnings; no later one may differ.
fn decided(data: &[u8]) -> Verdict {
    let mut seen = 0;
    let first = loop {
        match inspect(data.get(..seen).unwrap_or(data), data.len()) {
            Verdict::More => seen += 1,
            decided => break decided,
        }
        assert!(seen <= data.len().min(600), "undecided after {seen} bytes");
    };
    for more in [seen + 1, seen + 2, seen + 7, seen + 100, data.len()] {
        if let Some(beginning) = data.get(seen..more).and(data.get(..more)) {
            let later = inspect(beginning, data.len());
            // A payload of names only is undecided to its end, and then nothing of ours.
            let at_the_end = more == data.len() && later == Verdict::Pass && rewrite(data, NETNS).is_none();
            assert!(later == first || at_the_end, "{first:?} after {seen} bytes, {later:?} after {more}");
        }
    }
    first
}

/// How often a service or a method is named.
fn names(data: &[u8]) -> usize {
    let mut stream = CodedInputStream::from_bytes(data);
    let mut names = 0;
    while let Ok(Some(tag)) = stream.read_raw_tag_or_eof() {
        names += usize::from(matches!(tag >> 3, 1 | 2));
        let Some(wire) = protobuf::rt::WireType::new(tag & 7) else { break };
        if stream.skip_field(wire).is_err() {
            break;
        }
    }
    names
}

fn container(before: &[u8], after: &[u8]) {
    let (mut before, mut after) = (parse::<CreateContainerRequest>(before), parse::<CreateContainerRequest>(after));
    let namespaces = &mut after.OCI.mut_or_insert_default().Linux.mut_or_insert_default().Namespaces;
    let ours = namespaces.pop().unwrap();
    assert_eq!((ours.Type.as_str(), ours.Path.as_str()), ("network", NETNS));
    assert!(namespaces.iter().all(|namespace| namespace.Type != "network"));
    let theirs = &mut before.OCI.mut_or_insert_default().Linux.mut_or_insert_default().Namespaces;
    theirs.retain(|namespace| namespace.Type != "network");
    assert_eq!(before.write_to_bytes().unwrap().len(), after.write_to_bytes().unwrap().len());
    assert_eq!(before, after, "more was changed than the namespace");
}

fn sandbox(before: &[u8], after: &[u8]) {
    let (mut before, after) = (parse::<CreateSandboxRequest>(before), parse::<CreateSandboxRequest>(after));
    assert!(after.dns.is_empty());
    before.dns.clear();
    assert_eq!(before, after, "more was changed than the DNS");
}

/// Whether two requests that were changed say the same: the order of a map's entries is nobody's.
pub(super) fn alike(one: &Request, other: &Request) -> bool {
    let payload = match one.method.as_str() {
        "CreateContainer" => {
            parse::<CreateContainerRequest>(&one.payload) == parse::<CreateContainerRequest>(&other.payload)
        }
        _ => parse::<CreateSandboxRequest>(&one.payload) == parse::<CreateSandboxRequest>(&other.payload),
    };
    let envelope = |of: &Request| Request { payload: Vec::new(), ..of.clone() };
    payload && one.payload.len() == other.payload.len() && envelope(one) == envelope(other)
}

pub(super) fn parse<M: Message>(bytes: &[u8]) -> M {
    M::parse_from_bytes(bytes).unwrap()
}
