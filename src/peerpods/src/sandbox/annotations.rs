//! CreateVM's annotations: exactly the nine keys both shims send, unset ones as "0" or "", then the user's own. One more says that
//! nobody stays at the agent socket: this client comes and goes, and its sandboxes must not be taken for abandoned.

use std::collections::HashMap;

use peerpods_podvm::annotations::keys::UNATTENDED;

/// The prefix of sizes and choices.
const HYPERVISOR: &str = "io.katacontainers.config.hypervisor.";

/// What a pod asks of its VM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodWishes {
    /// The pod's name.
    pub pod_name: String,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// Virtual processors.
    pub vcpus: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: Option<u64>,
    /// Image.
    pub image: Option<String>,
    /// Machine type.
    pub machine_type: Option<String>,
    /// Initdata as TOML.
    pub initdata: Option<String>,
    /// Whatever else, overriding the above.
    pub others: Vec<(String, String)>,
}

/// The annotations as the Go shim sends them.
#[must_use]
pub fn annotations(wishes: &PodWishes) -> HashMap<String, String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let own = [
        ("machine_type", text(&wishes.machine_type)),
        ("image", text(&wishes.image)),
        ("default_vcpus", wishes.vcpus.unwrap_or_default().to_string()),
        ("default_memory", wishes.memory_mib.unwrap_or_default().to_string()),
        ("default_gpus", "0".to_owned()),
        ("default_gpu_model", String::new()),
        ("cc_init_data", text(&wishes.initdata)),
    ];
    let own = own.into_iter().map(|(key, value)| (format!("{HYPERVISOR}{key}"), value));
    let pod = [
        ("io.kubernetes.cri.sandbox-name", &wishes.pod_name),
        ("io.kubernetes.cri.sandbox-namespace", &wishes.pod_namespace),
    ];
    let pod = pod.into_iter().map(|(key, value)| (key.to_owned(), value.clone()));
    let unattended = std::iter::once((UNATTENDED.to_owned(), "true".to_owned()));
    own.chain(pod).chain(unattended).chain(wishes.others.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use peerpods_podvm::annotations::PodRequest;

    use super::*;

    fn wishes() -> PodWishes {
        PodWishes { pod_name: "web".to_owned(), pod_namespace: "shop".to_owned(), ..PodWishes::default() }
    }

    #[test]
    fn nothing_wished_for_is_read_back_as_nothing() {
        let sent = annotations(&wishes());
        assert_eq!(sent.len(), 10);
        let read = PodRequest::from_annotations(&sent).unwrap();
        assert!(read.unattended, "a shim that is gone means nothing here");
        assert_eq!((read.pod_name.as_str(), read.pod_namespace.as_str()), ("web", "shop"));
        assert_eq!((read.vcpus, read.memory_mib, read.image, read.machine_type), (None, None, None, None));
    }

    #[test]
    fn wishes_are_read_back_and_the_users_own_annotations_win() {
        let others = vec![(format!("{HYPERVISOR}image"), "other".to_owned())];
        let image = Some("mine".to_owned());
        let sent =
            annotations(&PodWishes { vcpus: Some(2), memory_mib: Some(512), image, others, ..wishes() });
        let read = PodRequest::from_annotations(&sent).unwrap();
        assert_eq!((read.vcpus, read.memory_mib), (Some(2), Some(512)));
        assert_eq!(read.image.as_deref(), Some("other"));
    }
}
