//! CreateVM, by either protocol.
//!
//! Both decoders take the same bytes for the same request: what one reads and the other too, they read alike. What the service makes of it is
//! a sandbox whose id is one file name, with a checked request, or one refusal that names what is wrong in bounded length and on one line.

use std::collections::HashMap;

use peerpods_hypervisor::fuzzing::ask;
use peerpods_proto::grpc::hypervisor::CreateVmRequest;
use peerpods_proto::ttrpc::hypervisor::CreateVMRequest;
use prost::Message as _;
use protobuf::Message as _;

use super::{PROTOBUF_RESERVES, Target};

/// The target.
pub const TARGET: Target =
    Target { name: "create_vm", check, max_len: 512, memory: PROTOBUF_RESERVES + (3 << 20), memory_per_byte: 1024 };

fn check(data: &[u8]) {
    let ttrpc = CreateVMRequest::parse_from_bytes(data);
    let grpc = CreateVmRequest::decode(data);
    if let (Ok(ttrpc), Ok(grpc)) = (&ttrpc, &grpc) {
        assert_eq!(ttrpc.id, grpc.id);
        assert_eq!(ttrpc.networkNamespacePath, grpc.network_namespace_path);
        assert_eq!(ttrpc.annotations, grpc.annotations);
    }
    if let Ok(ttrpc) = &ttrpc {
        asked(&ttrpc.id, &ttrpc.annotations, &ttrpc.networkNamespacePath);
    }
    if let Ok(grpc) = &grpc {
        asked(&grpc.id, &grpc.annotations, &grpc.network_namespace_path);
    }
}

fn asked(id: &str, annotations: &HashMap<String, String>, netns: &str) {
    match ask(id, annotations, netns) {
        Ok(ask) => {
            assert_eq!((ask.sandbox.as_str(), ask.netns.to_str()), (id, Some(netns)));
            assert!(!id.contains('/') && !matches!(id, "" | "." | "..") && id.len() <= 64);
        }
        Err(refusal) => {
            assert!(refusal.len() < 1 << 16 && !refusal.contains(['\n', '\0', '\x1b']), "{refusal:?}");
        }
    }
}
