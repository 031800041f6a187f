//! What a decision about a PeerPodConfig is made from, as plain data.

use std::collections::BTreeMap;

use peerpods_crds::PeerPodConfig;

/// A cluster as far as a PeerPodConfig is concerned.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The PeerPodConfig.
    pub config: PeerPodConfig,
    /// Names of older ones: the oldest is the one that counts.
    pub older: Vec<String>,
    /// All nodes.
    pub nodes: Vec<Node>,
    /// The Secret it names, if it is there.
    pub secret: Option<Keys>,
    /// The ConfigMap it names, if it is there.
    pub config_map: Option<Keys>,
    /// The node service as it is.
    pub service: Service,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How many VMs it says it can have.
    pub advertised: Option<String>,
}

/// Keys of a Secret or a ConfigMap. Values are only compared: nothing shows them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys(pub BTreeMap<String, Vec<u8>>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The node service's DaemonSet as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// On how many nodes it is to run.
    pub wanted: i32,
    /// On how many it is ready, in its newest form.
    pub ready: i32,
    /// Its pods that do not get on, by node.
    pub stuck: Vec<Stuck>,
}

/// A pod that does not get on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// On which node.
    pub node: String,
    /// What the service said when it ended, or what the kubelet says.
    pub why: String,
}
