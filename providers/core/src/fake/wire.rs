//! What a fake cloud and its client in another process say to each other: one JSON object a datagram.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use peerpods_podvm::ClusterId;
use peerpods_podvm::image::GuestAdmission;
use serde::{Deserialize, Serialize};

use crate::{ErrorKind, Facts, Instance, ProviderError, UserData, VmKey, VmSize, VmSpec};

/// The largest datagram taken, in bytes: 16 KiB of user data as a JSON array of numbers, with room. Below the kernel's default send
/// buffer for unix sockets.
pub(super) const DATAGRAM_MAX: usize = 192 * 1024;

/// A request, numbered by the client.
#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) call: Call,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Call {
    Verify,
    GuestAdmission { image: Option<String> },
    Create { key: VmKey, spec: Spec },
    Get { key: VmKey },
    List { cluster: ClusterId },
    Delete { key: VmKey },
}

/// The answer to the request of that number.
#[derive(Serialize, Deserialize)]
pub(super) struct Reply {
    pub(super) number: u64,
    pub(super) answer: Result<Answer, Failure>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Answer {
    Facts(Told),
    GuestAdmission(GuestAdmission),
    Created(Instance),
    Found(Option<Instance>),
    Listed(Vec<(VmKey, Instance)>),
    Deleted,
}

/// A [`VmSpec`], with the user data in the clear: the cloud has to be told it.
#[derive(Serialize, Deserialize)]
pub(super) struct Spec {
    name: String,
    image: Option<String>,
    machine_type: Option<String>,
    size: VmSize,
    user_data: Vec<u8>,
    tags: BTreeMap<String, String>,
}

impl From<&VmSpec> for Spec {
    fn from(spec: &VmSpec) -> Self {
        let VmSpec { name, image, machine_type, size, user_data, tags } = spec.clone();
        Self { name, image, machine_type, size, user_data: user_data.expose().to_vec(), tags }
    }
}

impl From<Spec> for VmSpec {
    fn from(spec: Spec) -> Self {
        let Spec { name, image, machine_type, size, user_data, tags } = spec;
        Self { name, image, machine_type, size, user_data: UserData::new(user_data), tags }
    }
}

/// [`Facts`].
#[derive(Serialize, Deserialize)]
pub(super) struct Told {
    user_data_limit: usize,
    worker_address: Option<IpNet>,
    underlay_mtu: u32,
    remarks: Vec<String>,
}

impl From<Facts> for Told {
    fn from(facts: Facts) -> Self {
        let Facts { user_data_limit, worker_address, underlay_mtu, remarks } = facts;
        Self { user_data_limit, worker_address, underlay_mtu, remarks }
    }
}

impl From<Told> for Facts {
    fn from(told: Told) -> Self {
        let Told { user_data_limit, worker_address, underlay_mtu, remarks } = told;
        Self { user_data_limit, worker_address, underlay_mtu, remarks }
    }
}

/// A [`ProviderError`]; its cause as text.
#[derive(Serialize, Deserialize)]
pub(super) struct Failure {
    kind: Kind,
    operation: String,
    message: String,
    code: Option<String>,
    request_id: Option<String>,
    hint: Option<String>,
    retry_after: Option<Duration>,
    cause: Option<String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Kind {
    Transient,
    Throttled,
    Capacity,
    Quota,
    Denied,
    Invalid,
    NotFound,
}

/// Both ways in one list, so that neither can lack a kind.
macro_rules! kinds {
    ($($kind:ident),+) => {
        impl From<ErrorKind> for Kind {
            fn from(kind: ErrorKind) -> Self {
                match kind { $(ErrorKind::$kind => Self::$kind),+ }
            }
        }
        impl From<Kind> for ErrorKind {
            fn from(kind: Kind) -> Self {
                match kind { $(Kind::$kind => Self::$kind),+ }
            }
        }
    };
}

kinds!(Transient, Throttled, Capacity, Quota, Denied, Invalid, NotFound);

impl From<ProviderError> for Failure {
    fn from(error: ProviderError) -> Self {
        let cause = error.source.as_ref().map(ToString::to_string);
        let ProviderError { kind, operation, message, code, request_id, hint, retry_after, source: _ } =
            error;
        Self { kind: kind.into(), operation, message, code, request_id, hint, retry_after, cause }
    }
}

impl From<Failure> for ProviderError {
    fn from(failure: Failure) -> Self {
        let Failure { kind, operation, message, code, request_id, hint, retry_after, cause } = failure;
        Self {
            kind: kind.into(),
            operation,
            message,
            code,
            request_id,
            hint,
            retry_after,
            source: cause.map(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_arrives_with_all_it_says() {
        let kinds = [
            ErrorKind::Transient,
            ErrorKind::Throttled,
            ErrorKind::Capacity,
            ErrorKind::Quota,
            ErrorKind::Denied,
            ErrorKind::Invalid,
            ErrorKind::NotFound,
        ];
        for kind in kinds {
            let mut sent = ProviderError::new(kind, "create VM", "no").code("E1").hint("wait");
            sent.request_id = Some("r-1".to_owned());
            sent.retry_after = Some(Duration::from_millis(1500));
            let sent = sent.caused_by("a cause");
            let text = sent.to_string();
            let json = serde_json::to_string(&Failure::from(sent)).unwrap();
            let back = ProviderError::from(serde_json::from_str::<Failure>(&json).unwrap());
            assert_eq!((back.kind, back.to_string()), (kind, text));
            assert_eq!(back.retry_after, Some(Duration::from_millis(1500)));
            assert_eq!(back.source.unwrap().to_string(), "a cause");
        }
    }
}
