//! What a shim says about the pod at CreateVM.
//!
//! Every map of annotations is a request or a list of faults, each with its key and a message of bounded length that cannot break a log line. A request
//! is within its bounds: names Kubernetes allows, sizes no larger than any machine. It survives its record (JSON), gives a VM
//! name that is a DNS label, and a size or a refusal under any policy. Said again in the plainest spelling it is the same request.

use std::collections::HashMap;

use peerpods_podvm::annotations::{PodRequest, keys};
use peerpods_podvm::naming::vm_name;
use peerpods_podvm::sizing::{Size, SizePolicy};

use super::Target;

/// The target.
pub const TARGET: Target =
    Target { name: "annotations", check, max_len: 768, memory: 3 << 20, memory_per_byte: 256 };

/// The keys in the order in which an input gives their values, parted by zeros.
const KEYS: [&str; 14] = [
    keys::SANDBOX_NAME,
    keys::SANDBOX_NAMESPACE,
    keys::VCPUS,
    keys::MEMORY,
    keys::GPUS,
    keys::GPU_MODEL,
    keys::MACHINE_TYPE,
    keys::IMAGE,
    keys::UNATTENDED,
    keys::INITDATA,
    keys::INITDATA_OLD,
    keys::CRIO_KUBE_NAME,
    keys::CRIO_SANDBOX_NAME,
    keys::CRIO_NAMESPACE,
];

fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let annotations: HashMap<String, String> =
        KEYS.iter().zip(text.split('\0')).map(|(key, value)| ((*key).to_owned(), value.to_owned())).collect();
    match PodRequest::from_annotations(&annotations) {
        Ok(request) => usable(&request),
        Err(errors) => {
            assert!(!errors.0.is_empty() && errors.0.len() <= KEYS.len());
            for fault in &errors.0 {
                assert!(fault.shown.as_ref().is_none_or(|shown| shown.chars().count() <= 61));
            }
            let told = errors.to_string();
            assert!(told.len() < 14 * 4096, "{} bytes of faults", told.len());
            assert!(!told.contains(['\n', '\r', '\x1b', '\0']), "{told:?} breaks the line");
        }
    }
}

fn usable(request: &PodRequest) {
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    for (text, max) in [(&request.pod_name, 253), (&request.pod_namespace, 63)] {
        assert!((1..=max).contains(&text.len()) && text.chars().all(name), "{text:?} is no name");
    }
    assert!(request.vcpus.is_none_or(|n| (1..=4096).contains(&n)));
    assert!(request.memory_mib.is_none_or(|n| (1..=64 << 20).contains(&n)));
    assert!(request.gpus <= 256);
    for text in [&request.machine_type, &request.image, &request.gpu_model].into_iter().flatten() {
        assert!((1..=1024).contains(&text.len()) && !text.chars().any(char::is_control));
    }
    let label = vm_name(&request.pod_name, &"0123456789abcdef".parse().unwrap(), 63);
    assert!(label.len() <= 63 && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
    let json = serde_json::to_string(request).unwrap();
    assert_eq!(&serde_json::from_str::<PodRequest>(&json).unwrap(), request, "its record is another");
    let size = |vcpus, memory_mib| Size { vcpus, memory_mib, gpus: vcpus };
    let policy = SizePolicy::new(size(0, 256), size(2, 2048), size(16, 65_536)).unwrap();
    if let Ok(size) = policy.size_for(request) {
        assert!(size.vcpus <= 16 && (256..=65_536).contains(&size.memory_mib) && size.gpus <= 16);
    }
    assert_eq!(PodRequest::from_annotations(&spelt(request)).as_ref(), Ok(request), "said again it is another");
}

/// The request's plainest spelling.
fn spelt(request: &PodRequest) -> HashMap<String, String> {
    let number = |n: Option<u64>| n.unwrap_or(0).to_string();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    // Packed: a TOML text may begin like one that is.
    let initdata = request.initdata.as_ref().map(|i| i.encode());
    HashMap::from(
        [
            (keys::SANDBOX_NAME, request.pod_name.clone()),
            (keys::SANDBOX_NAMESPACE, request.pod_namespace.clone()),
            (keys::VCPUS, number(request.vcpus.map(u64::from))),
            (keys::MEMORY, number(request.memory_mib)),
            (keys::GPUS, request.gpus.to_string()),
            (keys::GPU_MODEL, text(&request.gpu_model)),
            (keys::MACHINE_TYPE, text(&request.machine_type)),
            (keys::IMAGE, text(&request.image)),
            (keys::UNATTENDED, request.unattended.to_string()),
            (keys::INITDATA, initdata.unwrap_or_default()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    )
}
