//! What turns peer pods on: the PeerPodConfig, and the registry credentials for guests.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::kataconfig::pools::Target;
use crate::names;
use crate::objects::{Desired, Kind, ObjectRef};

/// How many VMs a node may have when nobody says.
const LIMIT: &str = "10";

/// The PeerPodConfig. `limit` is the one it has now: an administrator's edit is kept.
#[must_use]
pub fn peer_pod_config(target: Target, namespace: &str, limit: Option<&str>) -> Desired {
    Desired {
        object: ObjectRef::namespaced(Kind::PEER_POD_CONFIG, namespace, names::PEER_POD_CONFIG),
        body: json!({
            "spec": {
                "cloudSecretName": names::CLOUD_SECRET,
                "configMapName": names::CLOUD_CONFIG,
                "limit": limit.unwrap_or(LIMIT),
                "nodeSelector": { target.role_label(): "" },
            },
        }),
    }
}

/// The registry credentials of the cluster, as guests get them.
#[must_use]
pub fn auth_secret(namespace: &str, credentials: &[u8]) -> Desired {
    Desired {
        object: ObjectRef::namespaced(Kind::SECRET, namespace, names::AUTH_SECRET),
        body: json!({ "type": "Opaque", "data": { "auth.json": BASE64_STANDARD.encode(credentials) } }),
    }
}
