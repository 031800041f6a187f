//! Which requests are changed on their way to the agent, and how. Pure.
//!
//! Two, both of `grpc.AgentService` (`facts/adaptor.md` §3.3): *CreateContainer* is given the pod's network namespace, because the
//! shims strip it and the agent itself runs in the VM's own; *CreateSandbox* loses its `dns`, so that the agent leaves the VM's
//! resolv.conf alone. Fields this version does not know are kept. Everything else is not decoded at all.

use peerpods_proto::ttrpc::agent::{CreateContainerRequest, CreateSandboxRequest};
use peerpods_proto::ttrpc::envelope::Request;
use peerpods_proto::ttrpc::oci::LinuxNamespace;
use protobuf::Message;

const AGENT_SERVICE: &[u8] = b"grpc.AgentService";
const CREATE_CONTAINER: &str = "CreateContainer";
const CREATE_SANDBOX: &str = "CreateSandbox";
/// A service or method name longer than this is none of ours. It bounds how much of a frame must be seen before it is decided.
const MAX_NAME: usize = 256;
/// By then both names were seen, whatever their encoding; a request that repeats fields instead is held and decoded whole.
const ENOUGH: usize = 600;

/// What is to be done with a request of which a beginning was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided: show more of it. Never answered once the whole payload was shown, or 600 bytes.
    More,
    /// Forward it as it is, without holding it.
    Pass,
    /// Hold it whole and give it to [`rewrite`].
    Hold,
}

/// Decides by the beginning of a request frame's payload. `total` is the payload's length in bytes.
#[must_use]
pub fn inspect(seen: &[u8], total: usize) -> Verdict {
    let incomplete = match seen.len() {
        len if len >= total => Verdict::Pass,
        len if len >= ENOUGH => Verdict::Hold,
        _ => Verdict::More,
    };
    let mut rest = seen;
    let (mut service, mut method) = (None, None);
    loop {
        let field = match next_field(rest) {
            Ok(Some(field)) => field,
            Ok(None) => return incomplete,
            Err(Malformed) => return Verdict::Pass,
        };
        match field {
            Field::Name { number: 1, text, after } => (service, rest) = (Some(text), after),
            Field::Name { text, after, .. } => (method, rest) = (Some(text), after),
            Field::TooLong => return Verdict::Pass,
            // Every known encoder writes fields in order. One that does not is still served, at the price of holding the frame.
            Field::Other => return Verdict::Hold,
        }
        match (service, method) {
            (Some(name), _) if name != AGENT_SERVICE => return Verdict::Pass,
            (Some(_), Some(method)) => return by_method(method),
            _ => {}
        }
    }
}

fn by_method(method: &[u8]) -> Verdict {
    if method == CREATE_CONTAINER.as_bytes() || method == CREATE_SANDBOX.as_bytes() {
        Verdict::Hold
    } else {
        Verdict::Pass
    }
}

/// The changed payload of a request frame; none when it is to be forwarded as it is, which includes what cannot be decoded: the
/// agent's own error says it better.
#[must_use]
pub fn rewrite(payload: &[u8], netns: &str) -> Option<Vec<u8>> {
    let mut request = Request::parse_from_bytes(payload).ok()?;
    if request.service.as_bytes() != AGENT_SERVICE {
        return None;
    }
    request.payload = match request.method.as_str() {
        CREATE_CONTAINER => create_container(&request.payload, netns)?,
        CREATE_SANDBOX => create_sandbox(&request.payload)?,
        _ => return None,
    };
    request.write_to_bytes().ok()
}

fn create_container(payload: &[u8], netns: &str) -> Option<Vec<u8>> {
    let mut request = CreateContainerRequest::parse_from_bytes(payload).ok()?;
    let linux = request.OCI.mut_or_insert_default().Linux.mut_or_insert_default();
    linux.Namespaces.retain(|namespace| namespace.Type != "network");
    linux.Namespaces.push(LinuxNamespace {
        Type: "network".to_owned(),
        Path: netns.to_owned(),
        ..LinuxNamespace::default()
    });
    request.write_to_bytes().ok()
}

fn create_sandbox(payload: &[u8]) -> Option<Vec<u8>> {
    let mut request = CreateSandboxRequest::parse_from_bytes(payload).ok()?;
    request.dns.clear();
    request.write_to_bytes().ok()
}

enum Field<'a> {
    /// Field 1 (service) or 2 (method), whole.
    Name { number: u64, text: &'a [u8], after: &'a [u8] },
    /// Field 1 or 2, longer than any name of ours.
    TooLong,
    /// Any other field: what comes after it was not looked at.
    Other,
}

/// No protobuf, or a name that is no string.
struct Malformed;

/// The next field of a Request; none when it is not there whole.
fn next_field(bytes: &[u8]) -> Result<Option<Field<'_>>, Malformed> {
    let Some((tag, rest)) = varint(bytes)? else { return Ok(None) };
    let number = tag >> 3;
    match (number, tag & 7) {
        (1 | 2, 2) => {}
        (0..=2, _) => return Err(Malformed),
        _ => return Ok(Some(Field::Other)),
    }
    let Some((length, rest)) = varint(rest)? else { return Ok(None) };
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= MAX_NAME) else {
        return Ok(Some(Field::TooLong));
    };
    Ok(rest.split_at_checked(length).map(|(text, after)| Field::Name { number, text, after }))
}

/// A base-128 number and what follows it; none when it is not there whole.
fn varint(bytes: &[u8]) -> Result<Option<(u64, &[u8])>, Malformed> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate() {
        if at == 10 {
            return Err(Malformed);
        }
        value |= u64::from(byte & 0x7f).wrapping_shl(u32::try_from(7 * at).unwrap_or(0));
        if byte & 0x80 == 0 {
            return Ok(bytes.get(at + 1..).map(|rest| (value, rest)));
        }
    }
    if bytes.len() >= 10 { Err(Malformed) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use peerpods_proto::ttrpc::oci::{Linux, Spec};
    use proptest::prelude::*;
    use protobuf::MessageField;

    use super::*;

    fn request(service: &str, method: &str, payload: Vec<u8>) -> Vec<u8> {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload,
            timeout_nano: 5,
            ..Request::default()
        };
        request.write_to_bytes().unwrap()
    }

    fn rewritten<M: Message>(method: &str, message: &M) -> M {
        let bytes = request("grpc.AgentService", method, message.write_to_bytes().unwrap());
        assert_eq!(inspect(&bytes, bytes.len()), Verdict::Hold);
        let changed = Request::parse_from_bytes(&rewrite(&bytes, "/run/netns/podns").unwrap()).unwrap();
        assert_eq!((changed.method.as_str(), changed.timeout_nano), (method, 5));
        M::parse_from_bytes(&changed.payload).unwrap()
    }

    fn networks(request: &CreateContainerRequest) -> Vec<&str> {
        let all = request.OCI.Linux.Namespaces.iter();
        all.filter(|n| n.Type == "network").map(|n| n.Path.as_str()).collect()
    }

    #[test]
    fn a_container_without_any_spec_gets_the_network_namespace() {
        let changed = rewritten("CreateContainer", &CreateContainerRequest::new());
        assert_eq!(networks(&changed), ["/run/netns/podns"]);
    }

    #[test]
    fn a_network_namespace_already_there_is_replaced_and_others_stay() {
        let namespace = |kind: &str, path: &str| LinuxNamespace {
            Type: kind.to_owned(),
            Path: path.to_owned(),
            ..LinuxNamespace::default()
        };
        let mut linux = Linux::new();
        linux.Namespaces =
            vec![namespace("network", "/old"), namespace("mount", ""), namespace("network", "")];
        let spec = Spec { Linux: MessageField::some(linux), ..Spec::default() };
        let message = CreateContainerRequest { OCI: MessageField::some(spec), ..Default::default() };
        let changed = rewritten("CreateContainer", &message);
        assert_eq!(networks(&changed), ["/run/netns/podns"]);
        assert_eq!(changed.OCI.Linux.Namespaces[0].Type, "mount");
    }

    #[test]
    fn fields_from_the_future_are_kept_at_every_depth() {
        let mut message = CreateContainerRequest::new();
        message.special_fields.mut_unknown_fields().add_varint(900, 42);
        let spec = message.OCI.mut_or_insert_default();
        spec.special_fields.mut_unknown_fields().add_length_delimited(901, b"new".to_vec());
        spec.Linux.mut_or_insert_default().special_fields.mut_unknown_fields().add_fixed32(902, 7);
        let changed = rewritten("CreateContainer", &message);
        let value = |fields: &protobuf::UnknownFields, number| fields.get(number).is_some();
        assert!(value(changed.special_fields.unknown_fields(), 900));
        assert!(value(changed.OCI.special_fields.unknown_fields(), 901));
        assert!(value(changed.OCI.Linux.special_fields.unknown_fields(), 902));
    }

    #[test]
    fn a_sandbox_loses_its_dns_and_nothing_else() {
        let message = CreateSandboxRequest {
            hostname: "web".to_owned(),
            dns: vec!["nameserver 10.0.0.1".to_owned()],
            sandbox_id: "s1".to_owned(),
            ..Default::default()
        };
        let changed = rewritten("CreateSandbox", &message);
        assert_eq!(changed, CreateSandboxRequest { dns: Vec::new(), ..message });
    }

    #[test]
    fn other_methods_and_services_pass_without_being_held() {
        for (service, method) in [
            ("grpc.AgentService", "CopyFile"),
            ("grpc.AgentService", "FromTheFuture"),
            ("grpc.Health", "CreateContainer"),
            ("other.Service", "CreateSandbox"),
        ] {
            let bytes = request(service, method, vec![0; 100_000]);
            assert_eq!(inspect(&bytes[..64], bytes.len()), Verdict::Pass, "{service}/{method}");
            assert_eq!(rewrite(&bytes, "/n"), None);
        }
    }

    #[test]
    fn a_decision_waits_for_the_names_and_no_longer() {
        let bytes = request("grpc.AgentService", "CreateContainer", vec![1; 5000]);
        let names = 2 + 17 + 2 + 15;
        for seen in 0..names {
            assert_eq!(inspect(&bytes[..seen], bytes.len()), Verdict::More, "after {seen} bytes");
        }
        assert_eq!(inspect(&bytes[..names], bytes.len()), Verdict::Hold);
    }

    #[test]
    fn fields_in_another_order_are_rewritten_too() {
        let payload = CreateSandboxRequest { dns: vec!["x".to_owned()], ..Default::default() };
        let payload = payload.write_to_bytes().unwrap();
        let mut bytes = vec![0x1a, u8::try_from(payload.len()).unwrap()];
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(&request("grpc.AgentService", "CreateSandbox", Vec::new()));
        assert_eq!(inspect(&bytes, bytes.len()), Verdict::Hold);
        let changed = Request::parse_from_bytes(&rewrite(&bytes, "/n").unwrap()).unwrap();
        assert!(changed.payload.is_empty());
    }

    #[test]
    fn what_cannot_be_decoded_goes_to_the_agent_as_it_is() {
        let bytes = request("grpc.AgentService", "CreateContainer", vec![0xff; 40]);
        assert_eq!(inspect(&bytes, bytes.len()), Verdict::Hold);
        assert_eq!(rewrite(&bytes, "/n"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_the_whole_is_always_decided(bytes: Vec<u8>, seen in 0usize..2000) {
            let seen = seen.min(bytes.len());
            let _ = inspect(&bytes[..seen], bytes.len());
            prop_assert_ne!(inspect(&bytes, bytes.len()), Verdict::More);
            let _ = rewrite(&bytes, "/n");
        }

        #[test]
        fn six_hundred_bytes_always_decide(mut bytes in proptest::collection::vec(any::<u8>(), 600..700)) {
            prop_assert_ne!(inspect(&bytes, 1 << 20), Verdict::More);
            // The worst honest case: two names as long as names may be.
            bytes.splice(0..3, [0x0a, 0x80, 0x02]);
            prop_assert_ne!(inspect(&bytes, 1 << 20), Verdict::More);
            // The worst dishonest one: one name again and again.
            let repeated = [0x12, 0x01, b'x'].repeat(200);
            prop_assert_eq!(inspect(&repeated, 1 << 20), Verdict::Hold);
        }
    }
}
