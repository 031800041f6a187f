//! What a decision about a KataConfig is made from, as plain data. Reading it is `observe`'s work.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use peerpods_crds::KataConfig;

use crate::names;
use crate::webhook::certificates::Source;
use crate::webhook::configuration::MatchConditions;

/// A cluster as far as a KataConfig is concerned.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The KataConfig.
    pub config: KataConfig,
    /// Which of OpenShift's APIs there are.
    pub apis: Apis,
    /// Names of older KataConfigs: the oldest is the one that counts.
    pub older: Vec<String>,
    /// All machine config pools, by name.
    pub pools: BTreeMap<String, Pool>,
    /// Nodes that are workers, control plane, or have our role; all where there is no machine config operator.
    pub nodes: Vec<Node>,
    /// Pods of runtime classes that are ours.
    pub pods: Vec<PodUse>,
    /// Names of the MachineConfigs that are ours and there.
    pub machine_configs: BTreeSet<String>,
    /// What pods of the installer's DaemonSet are made of, where it is there.
    pub installer: Option<String>,
    /// The registry credentials of the cluster, as a Secret has them.
    pub pull_secret: Option<Vec<u8>>,
    /// The dashboard that was installed with the operator.
    pub dashboard: Option<BTreeMap<String, String>>,
    /// Whether there is a ContainerRuntimeConfig of ours.
    pub log_level_config: bool,
    /// The runtime classes there are, by name.
    pub classes: BTreeMap<String, Class>,
    /// The limit that the PeerPodConfig has now: an administrator's edit is kept. None: there is no PeerPodConfig.
    pub peer_pod_limit: Option<String>,
    /// Objects that were asked to go and are not gone, as kind and name.
    pub going: Vec<String>,
    /// What the pods' webhook is made for, and what there is of it.
    pub webhook: PodWebhook,
}

impl World {
    /// A runtime class that another installer made: it is left alone. Where there is a machine config operator nobody else makes ours.
    #[must_use]
    pub fn foreign(&self, class: &str) -> Option<&Class> {
        self.classes.get(class).filter(|there| !there.ours && !self.apis.machine_configs)
    }

    /// One of those that does not lead to our handler, which has the class's name.
    #[must_use]
    pub fn taken(&self, class: &str) -> Option<&Class> {
        self.foreign(class).filter(|there| there.handler != class)
    }
}

/// A runtime class that is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Class {
    /// What the container runtime knows it by.
    pub handler: String,
    /// What a pod takes beside its containers: an administrator's edit is kept.
    pub overhead: BTreeMap<String, String>,
    /// Whether an operator of KataConfigs made it.
    pub ours: bool,
}

/// What the pods' webhook is made for, and what there is of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodWebhook {
    /// What the API server can.
    pub match_conditions: MatchConditions,
    /// Who makes certificates in this cluster.
    pub source: Source,
    /// Whether the cluster gives every namespace users of its own, as OpenShift does.
    pub users_given: bool,
    /// Whether the API server asks ours, and knows whom to trust.
    pub trusted: bool,
    /// Whether the configuration of upstream's operator is there.
    pub upstreams: bool,
    /// Whether the Secret of its certificate is there, and somebody else's.
    pub foreign_secret: bool,
}

/// Which of OpenShift's APIs a cluster has. Each may be there without the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apis {
    /// Its machine config operator's: it changes nodes.
    pub machine_configs: bool,
    /// That of security context constraints.
    pub security_constraints: bool,
}

impl Default for Apis {
    /// All of them.
    fn default() -> Self {
        Self { machine_configs: true, security_constraints: true }
    }
}

/// A machine config pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    /// The condition Updating is True.
    pub updating: bool,
    /// The condition Updated is True.
    pub updated: bool,
    /// What the condition NodeDegraded, else Degraded says when nodes failed.
    pub degraded: Option<String>,
    /// The rendered configuration nodes are to have.
    pub target: Option<String>,
    /// The MachineConfigs it is made of; none where that is not told.
    pub sources: BTreeSet<String>,
    /// How many nodes it has.
    pub machines: i32,
    /// How many of them have the target.
    pub updated_machines: i32,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What the machine config operator does with it; None where there is no such operator.
    pub state: Option<String>,
    /// The rendered configuration it has.
    pub current: Option<String>,
    /// Why it is degraded; where there is no such operator, why our files could not be placed or removed.
    pub reason: Option<String>,
    /// Whether its kubelet says that it is ready.
    pub ready: bool,
    /// Its container runtime and that one's version, as kubelet tells it: `containerd://2.0.1`.
    pub runtime: String,
    /// The pod that places or removes our files on it; none where a machine config operator does.
    pub worker: Option<FileWorker>,
}

/// What is to become of our files on a node: the value of its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// They are to be there.
    Installed,
    /// They are to go.
    Removed,
}

impl Files {
    /// The label's value.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Removed => "removed",
        }
    }
}

/// A pod that places our files on a node, or removes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileWorker {
    /// Which of the two.
    pub files: Files,
    /// It is of the form we want now, and has done its work.
    pub done: bool,
    /// What it says that it failed by.
    pub failure: Option<String>,
}

impl Node {
    /// Whether it is a worker.
    #[must_use]
    pub fn is_worker(&self) -> bool {
        self.labels.contains_key(names::WORKER_LABEL)
    }

    /// Whether it is of the control plane, by any of the labels that say so.
    #[must_use]
    pub fn is_control_plane(&self) -> bool {
        self.is_master() || self.labels.contains_key(names::CONTROL_PLANE_LABEL)
    }

    /// What is to become of our files on it. A value that is none of ours may be anybody's; files may be there.
    #[must_use]
    pub fn files(&self) -> Option<Files> {
        let value = self.labels.get(names::FILES_LABEL)?;
        Some(if value == Files::Removed.word() { Files::Removed } else { Files::Installed })
    }

    /// Whether our files are to be there, and the label is as the DaemonSet needs it.
    #[must_use]
    pub fn is_to_have_files(&self) -> bool {
        self.labels.get(names::FILES_LABEL).is_some_and(|value| value == Files::Installed.word())
    }

    /// The pod at work for what is to become of our files, if there is one.
    #[must_use]
    pub fn worker_for(&self, files: Files) -> Option<&FileWorker> {
        self.worker.as_ref().filter(|worker| worker.files == files)
    }

    /// Whether it is of the control plane, as pools see it.
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.labels.contains_key(names::MASTER_LABEL)
    }

    /// Whether it has our role.
    #[must_use]
    pub fn has_role(&self) -> bool {
        self.labels.contains_key(names::ROLE_LABEL)
    }
}

/// A pod that uses a runtime class of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodUse {
    /// Its runtime class.
    pub class: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it runs; empty before it is known.
    pub node: String,
}

impl fmt::Display for PodUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ({})", self.namespace, self.name, self.class)
    }
}
