//! The custom resources of peerpods: `KataConfig` (what is installed on a cluster), `PeerPodConfig` (the node service and its limit) and
//! `PeerPod` (who owns a VM). Types, their schemas, and the definitions as YAML.
//!
//! Names and forms are those of OpenShift sandboxed containers 1.4 and of cloud-api-adaptor, so that objects made for them are taken as they are;
//! fields of our own are optional and ignored there.
//!
//! Not here: what any of it means. Decisions are the operator's, and the node service writes `PeerPod`s.

mod definition;
mod kataconfig;
mod kataconfig_status;
mod peerpod;
mod peerpodconfig;

pub use definition::{Definition, all};
pub use kataconfig::{DEFAULT_LOG_LEVEL, KataConfig, KataConfigSpec, LOG_LEVELS, NodeSelector, Requirement};
pub use kataconfig_status::{
    CompletedNodes, Condition, FailedNode, FailedNodes, InstallationStatus, InstallingNodes,
    KataConfigStatus, KataNodes, NOT_SET, UninstallationStatus, UninstallingNodes, UpgradeStatus, WORD_FALSE,
    WORD_TRUE,
};
pub use peerpod::{PeerPod, PeerPodSpec, PeerPodStatus};
pub use peerpodconfig::{PeerPodConfig, PeerPodConfigSpec, PeerPodConfigStatus};

/// The group of `KataConfig`.
pub const KATACONFIG_GROUP: &str = "kataconfiguration.openshift.io";
/// The group of `PeerPodConfig` and `PeerPod`.
pub const PEERPODS_GROUP: &str = "confidentialcontainers.org";
/// What keeps a `KataConfig` until everything it brought is gone.
pub const KATACONFIG_FINALIZER: &str = "kataconfiguration.openshift.io/finalizer";
/// What keeps a `PeerPod` until its VM is gone.
pub const PEERPOD_FINALIZER: &str = "peer.pod/finalizer";
/// What keeps a `PeerPodConfig` until the nodes no longer advertise VMs.
pub const PEERPODCONFIG_FINALIZER: &str = "peerpods.io/extended-resource";
/// How nodes advertise the VMs they may have.
pub const VM_RESOURCE: &str = "kata.peerpods.io/vm";
