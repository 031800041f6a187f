//! Our protos say the same on the wire as upstream's: every message, field, enum value and call.
//!
//! Optional, because upstream's files are not ours to carry: `PEERPODS_KATA_PROTOS` names a directory with them (from
//! kata-containers, `src/libs/protocols/protos`, all in one directory).

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::collections::BTreeSet;
use std::path::Path;

use protox::prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor};

const UPSTREAM: &str = "PEERPODS_KATA_PROTOS";

/// Our file, and upstream's.
const FILES: [(&str, &str); 6] = [
    ("agent.proto", "agent.proto"),
    ("csi.proto", "csi.proto"),
    ("health.proto", "health.proto"),
    ("hypervisor.proto", "remote.proto"),
    ("oci.proto", "oci.proto"),
    ("types.proto", "types.proto"),
];

#[test]
fn our_protos_say_the_same_on_the_wire_as_upstreams() {
    let Some(upstream) = std::env::var_os(UPSTREAM) else {
        println!(
            "SKIP our_protos_say_the_same_on_the_wire_as_upstreams: optional comparison, {UPSTREAM} is not set"
        );
        return;
    };
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("protos");
    for (our_file, their_file) in FILES {
        let mine = facts(&ours, our_file);
        let theirs = facts(Path::new(&upstream), their_file);
        let extra: Vec<_> = mine.difference(&theirs).collect();
        let absent: Vec<_> = theirs.difference(&mine).collect();
        assert!(
            extra.is_empty() && absent.is_empty(),
            "{our_file}: only ours {extra:#?}, only upstream's {absent:#?}"
        );
        println!("{our_file}: {} facts equal to upstream's {their_file}", mine.len());
    }
}

#[test]
fn a_changed_field_number_is_a_difference() {
    let dir = tempfile::tempdir().unwrap();
    let proto =
        |number| format!("syntax = \"proto3\";\npackage p;\nmessage M {{ optional string a = {number}; }}\n");
    std::fs::write(dir.path().join("one.proto"), proto(1)).unwrap();
    std::fs::write(dir.path().join("two.proto"), proto(2)).unwrap();
    let (one, two) = (facts(dir.path(), "one.proto"), facts(dir.path(), "two.proto"));
    assert!(one.contains("field p.M.a = 1 string optional presence"), "{one:?}");
    assert_eq!(one.difference(&two).count(), 1);
}

/// One line for everything in `file` that shows on the wire.
fn facts(dir: &Path, file: &str) -> BTreeSet<String> {
    let pool = DescriptorPool::from_file_descriptor_set(protox::compile([file], [dir]).unwrap()).unwrap();
    let file = pool.get_file_by_name(file).unwrap();
    let mut out = BTreeSet::new();
    file.messages().for_each(|message| message_facts(&message, &mut out));
    file.enums().for_each(|listed| enum_facts(&listed, &mut out));
    for service in file.services() {
        for call in service.methods() {
            let streams = (call.is_client_streaming(), call.is_server_streaming());
            let (input, output) = (call.input(), call.output());
            out.insert(format!(
                "call {}({}) -> {} {streams:?}",
                call.full_name(),
                input.full_name(),
                output.full_name()
            ));
        }
    }
    out
}

fn message_facts(message: &MessageDescriptor, out: &mut BTreeSet<String>) {
    out.insert(format!("message {}", message.full_name()));
    message.fields().for_each(|field| {
        out.insert(field_fact(&field));
    });
    message.child_messages().for_each(|child| message_facts(&child, out));
    message.child_enums().for_each(|child| enum_facts(&child, out));
}

fn field_fact(field: &FieldDescriptor) -> String {
    let kind = match field.kind() {
        protox::prost_reflect::Kind::Message(to) => to.full_name().to_owned(),
        protox::prost_reflect::Kind::Enum(to) => to.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    let label = format!("{:?}", field.cardinality()).to_lowercase();
    let presence = if field.supports_presence() { " presence" } else { "" };
    let oneof = field.containing_oneof().filter(|o| !o.is_synthetic());
    let oneof = oneof.map_or(String::new(), |oneof| format!(" oneof {}", oneof.name()));
    format!("field {} = {} {kind} {label}{presence}{oneof}", field.full_name(), field.number())
}

fn enum_facts(listed: &EnumDescriptor, out: &mut BTreeSet<String>) {
    for value in listed.values() {
        out.insert(format!("value {}.{} = {}", listed.full_name(), value.name(), value.number()));
    }
}
