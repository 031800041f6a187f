//! What a shim says about the pod at CreateVM, checked.
//!
//! Both shims send the same nine keys, each always present and `"0"` or `""` when unset, but they spell values differently: the Go
//! shim rounds processors up, runtime-rs prints a fraction; CRI-O's sandbox name carries the whole `k8s_…` name; initdata came
//! under another key, and still encoded, in older releases. All of that ends here: [`PodRequest`] has one form. Keys not listed in
//! [`keys`] are ignored. What a request *gets* (defaults, bounds) is decided in [`crate::sizing`].

mod size_asked;
mod values;

pub use size_asked::SizeAsked;

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::causes::chain;
use crate::initdata::InitData;

/// The annotation keys we read.
pub mod keys {
    /// Pod name; under CRI-O with the Go shim the whole `k8s_<pod>_<namespace>_<uid>_<attempt>`.
    pub const SANDBOX_NAME: &str = "io.kubernetes.cri.sandbox-name";
    /// Pod namespace.
    pub const SANDBOX_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
    /// CRI-O's plain pod name, read when [`SANDBOX_NAME`] is empty.
    pub const CRIO_KUBE_NAME: &str = "io.kubernetes.cri-o.KubeName";
    /// CRI-O's `k8s_…` name, read when the two above are empty.
    pub const CRIO_SANDBOX_NAME: &str = "io.kubernetes.cri-o.SandboxName";
    /// CRI-O's pod namespace, read when [`SANDBOX_NAMESPACE`] is empty.
    pub const CRIO_NAMESPACE: &str = "io.kubernetes.cri-o.Namespace";
    /// Instance type, size or flavour.
    pub const MACHINE_TYPE: &str = "io.katacontainers.config.hypervisor.machine_type";
    /// Image id or name as the provider knows it.
    pub const IMAGE: &str = "io.katacontainers.config.hypervisor.image";
    /// Virtual processors, possibly a fraction.
    pub const VCPUS: &str = "io.katacontainers.config.hypervisor.default_vcpus";
    /// Memory in MiB, or with a unit.
    pub const MEMORY: &str = "io.katacontainers.config.hypervisor.default_memory";
    /// Number of GPUs.
    pub const GPUS: &str = "io.katacontainers.config.hypervisor.default_gpus";
    /// Number of GPUs as the webhook of cloud-api-adaptor 0.9 wrote it. No shim passes it on; what reads pods does.
    pub const GPUS_OLD: &str = "kata.peerpods.io.gpus";
    /// Instance type as the webhook of OpenShift sandboxed containers 1.4 wrote it. No shim passes it on.
    pub const INSTANCE_TYPE_OLD: &str = "kata.peerpods.io/instance_type";
    /// GPU model.
    pub const GPU_MODEL: &str = "io.katacontainers.config.hypervisor.default_gpu_model";
    /// Initdata, from Kata 3.20 on.
    pub const INITDATA: &str = "io.katacontainers.config.hypervisor.cc_init_data";
    /// Ours: `"true"` when nobody stays connected to the agent socket for the pod's life, as `peerpods sandbox` does not. A shim
    /// that is gone then means nothing.
    pub const UNATTENDED: &str = "io.peerpods.unattended";
    /// Initdata, before Kata 3.20.
    pub const INITDATA_OLD: &str = "io.katacontainers.config.runtime.cc_init_data";
}

/// What a pod asks for. `None` everywhere means "not asked for".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRequest {
    /// The pod's name, never empty.
    pub pod_name: String,
    /// The pod's namespace, never empty.
    pub pod_namespace: String,
    /// Instance type as the provider knows it.
    pub machine_type: Option<String>,
    /// Image as the provider knows it.
    pub image: Option<String>,
    /// Virtual processors, rounded up; at least 1.
    pub vcpus: Option<u32>,
    /// Memory in MiB, rounded up; at least 1.
    pub memory_mib: Option<u64>,
    /// GPUs; 0 when not asked for.
    pub gpus: u32,
    /// GPU model.
    pub gpu_model: Option<String>,
    /// Initdata, decoded and checked.
    pub initdata: Option<InitData>,
    /// Whether the pod goes on without anybody at its agent socket.
    #[serde(default)]
    pub unattended: bool,
}

/// One annotation that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotationFault {
    /// The annotation's key.
    pub key: &'static str,
    /// Its value, cut to a length fit for a message; `None` when it is missing or empty.
    pub shown: Option<String>,
    /// What should be there, or what is wrong.
    pub expected: String,
}

impl fmt::Display for AnnotationFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shown {
            Some(value) => write!(f, "{}={value:?}: {}", self.key, self.expected),
            None => write!(f, "{} is missing: {}", self.key, self.expected),
        }
    }
}

/// Every annotation that cannot be used; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotationErrors(pub Vec<AnnotationFault>);

impl fmt::Display for AnnotationErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the pod's annotations cannot be used: ")?;
        for (i, fault) in self.0.iter().enumerate() {
            write!(f, "{}{fault}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl std::error::Error for AnnotationErrors {}

impl PodRequest {
    /// A pod of which no more than its name is known, so that it asks for nothing.
    #[must_use]
    pub fn named(pod_name: String, pod_namespace: String) -> Self {
        Self {
            pod_name,
            pod_namespace,
            machine_type: None,
            image: None,
            vcpus: None,
            memory_mib: None,
            gpus: 0,
            gpu_model: None,
            initdata: None,
            unattended: false,
        }
    }

    /// Reads the annotation map of a CreateVM request.
    ///
    /// # Errors
    /// All faults at once, each with its key, its value shortened, and what is expected.
    pub fn from_annotations(annotations: &HashMap<String, String>) -> Result<Self, AnnotationErrors> {
        let mut reader = Reader { annotations, faults: Vec::new() };
        let (pod_name, pod_namespace) = reader.pod();
        let size = SizeAsked::read(&mut reader);
        let request = Self {
            pod_name,
            pod_namespace,
            machine_type: reader.optional(keys::MACHINE_TYPE, values::text),
            image: reader.optional(keys::IMAGE, values::text),
            vcpus: size.vcpus,
            memory_mib: size.memory_mib,
            gpus: size.gpus,
            gpu_model: reader.optional(keys::GPU_MODEL, values::text),
            initdata: reader.initdata(),
            unattended: reader.optional(keys::UNATTENDED, values::flag).unwrap_or(false),
        };
        if reader.faults.is_empty() { Ok(request) } else { Err(AnnotationErrors(reader.faults)) }
    }
}

/// The map, and what was found wrong with it so far.
struct Reader<'a> {
    annotations: &'a HashMap<String, String>,
    faults: Vec<AnnotationFault>,
}

impl<'a> Reader<'a> {
    /// The value of a key without the white space around it; `None` when absent or empty.
    fn get(&self, key: &str) -> Option<&'a str> {
        self.annotations.get(key).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The first of the keys that has a value, with that value.
    fn first(&self, keys: &[&'static str]) -> Option<(&'static str, &'a str)> {
        keys.iter().find_map(|key| self.get(key).map(|value| (*key, value)))
    }

    fn fault(&mut self, key: &'static str, value: Option<&str>, expected: impl Into<String>) {
        self.faults.push(AnnotationFault {
            key,
            shown: value.map(values::shorten),
            expected: expected.into(),
        });
    }

    /// A value that may be unset, which shims also write as `"0"`.
    fn optional<T>(&mut self, key: &'static str, parse: fn(&str) -> Result<T, String>) -> Option<T> {
        let value = self.get(key).filter(|value| *value != "0")?;
        match parse(value) {
            Ok(parsed) => Some(parsed),
            Err(expected) => {
                self.fault(key, Some(value), expected);
                None
            }
        }
    }

    /// Name and namespace; empty texts with a fault recorded where they cannot be had.
    fn pod(&mut self) -> (String, String) {
        let named = self.first(&[keys::SANDBOX_NAME, keys::CRIO_KUBE_NAME, keys::CRIO_SANDBOX_NAME]);
        let full = named.and_then(|(key, value)| values::crio_name(value).map(|parts| (key, parts)));
        let name = match full {
            Some((key, (pod, _))) => Some((key, pod)),
            None => named,
        };
        let namespace = self
            .first(&[keys::SANDBOX_NAMESPACE, keys::CRIO_NAMESPACE])
            .or(full.map(|(key, (_, namespace))| (key, namespace)));
        (
            self.required(keys::SANDBOX_NAME, name, "the pod's name", values::MAX_POD_NAME),
            self.required(keys::SANDBOX_NAMESPACE, namespace, "the pod's namespace", values::MAX_NAMESPACE),
        )
    }

    fn required(
        &mut self,
        missing: &'static str,
        found: Option<(&'static str, &str)>,
        what: &str,
        max: usize,
    ) -> String {
        match found {
            None => self.fault(missing, None, format!("want {what}")),
            Some((key, value)) => match values::kubernetes_name(value, max) {
                Ok(()) => return value.to_owned(),
                Err(expected) => self.fault(key, Some(value), format!("want {what}: {expected}")),
            },
        }
        String::new()
    }

    /// Initdata under either key. A value under both must be the same: guessing which of two policies was meant would be worse.
    fn initdata(&mut self) -> Option<InitData> {
        let new = self.initdata_of(keys::INITDATA);
        let old = self.initdata_of(keys::INITDATA_OLD);
        if let (Some(new), Some(old)) = (&new, &old)
            && new != old
        {
            let expected = format!("differs from {}; keep one of the two", keys::INITDATA);
            self.fault(keys::INITDATA_OLD, Some(old.as_toml()), expected);
        }
        new.or(old)
    }

    fn initdata_of(&mut self, key: &'static str) -> Option<InitData> {
        self.get(key).filter(|value| *value != "0")?;
        // Not trimmed: the digest is over the exact bytes.
        let value = self.annotations.get(key)?;
        match InitData::from_annotation(value) {
            Ok(initdata) => Some(initdata),
            Err(error) => {
                self.fault(
                    key,
                    Some(value),
                    format!("want initdata: {}", values::shorten_to(chain(&error).replace('\n', " "), 300)),
                );
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
