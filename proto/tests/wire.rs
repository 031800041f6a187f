//! Both sets of generated types read the same bytes, and the services have the names the shims call.

use std::sync::Arc;

use peerpods_proto::{grpc, ttrpc as messages};
use prost::Message as _;
use protobuf::Message as _;
use tonic::server::NamedService;

/// A CreateVMRequest put together by hand: tag, length, text.
fn create_vm_bytes() -> Vec<u8> {
    let mut bytes = b"\x0a\x04sb-1".to_vec();
    bytes.extend(b"\x12\x0c\x0a\x04name\x12\x04pod0");
    bytes.extend(b"\x1a\x0d/run/netns/ns");
    bytes
}

#[test]
fn a_create_request_made_by_hand_reads_the_same_both_ways() {
    let by_ttrpc = messages::hypervisor::CreateVMRequest::parse_from_bytes(&create_vm_bytes()).unwrap();
    let by_grpc = grpc::hypervisor::CreateVmRequest::decode(create_vm_bytes().as_slice()).unwrap();

    assert_eq!((by_ttrpc.id.as_str(), by_grpc.id.as_str()), ("sb-1", "sb-1"));
    assert_eq!(by_ttrpc.annotations, by_grpc.annotations);
    assert_eq!(by_ttrpc.annotations.get("name").map(String::as_str), Some("pod0"));
    assert_eq!(by_ttrpc.networkNamespacePath, "/run/netns/ns");
    assert_eq!(by_grpc.network_namespace_path, "/run/netns/ns");
}

#[test]
fn a_create_request_is_written_as_the_same_bytes_both_ways() {
    let by_ttrpc = messages::hypervisor::CreateVMRequest::parse_from_bytes(&create_vm_bytes()).unwrap();
    let by_grpc = grpc::hypervisor::CreateVmRequest::decode(create_vm_bytes().as_slice()).unwrap();

    assert_eq!(by_ttrpc.write_to_bytes().unwrap(), create_vm_bytes());
    assert_eq!(by_grpc.encode_to_vec(), create_vm_bytes());
}

#[test]
fn a_frame_envelope_is_the_one_of_the_ttrpc_library() {
    let ours = messages::envelope::Request {
        service: "grpc.Health".into(),
        method: "Check".into(),
        payload: vec![1, 2],
        timeout_nano: 30_000_000_000,
        ..Default::default()
    };
    let theirs = ttrpc::Request::parse_from_bytes(&ours.write_to_bytes().unwrap()).unwrap();
    assert_eq!((theirs.service.as_str(), theirs.method.as_str()), ("grpc.Health", "Check"));
    assert_eq!((theirs.payload, theirs.timeout_nano), (vec![1, 2], 30_000_000_000));
}

struct Nothing;
impl messages::hypervisor_ttrpc::Hypervisor for Nothing {}
impl messages::agent_ttrpc::AgentService for Nothing {}
impl messages::health_ttrpc::Health for Nothing {}

#[test]
fn services_are_registered_under_the_names_the_shims_call() {
    let hypervisor = messages::hypervisor_ttrpc::create_hypervisor(Arc::new(Nothing));
    assert!(hypervisor["hypervisor.Hypervisor"].methods.contains_key("CreateVM"));
    let agent = messages::agent_ttrpc::create_agent_service(Arc::new(Nothing));
    assert_eq!(agent["grpc.AgentService"].methods.len(), 42);
    let health = messages::health_ttrpc::create_health(Arc::new(Nothing));
    assert!(health["grpc.Health"].methods.contains_key("Check"));

    type Server<T> = grpc::hypervisor::hypervisor_server::HypervisorServer<T>;
    assert_eq!(<Server<()> as NamedService>::NAME, "hypervisor.Hypervisor");
    type Admin<T> = grpc::admin::sandboxes_server::SandboxesServer<T>;
    assert_eq!(<Admin<()> as NamedService>::NAME, "peerpods.v1.Sandboxes");
}
