//! What the node service is told at start. Plain data, but for the clock: reading files, environment and flags is the binary's work.

use std::path::PathBuf;
use std::time::Duration;

use peerpods_podvm::metadata::MetadataAccess;
use peerpods_podvm::{ClusterId, SandboxId};

use crate::clock::WallClock;

/// The service's configuration, already checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The shim's socket (`REMOTE_HYPERVISOR_ENDPOINT`).
    pub socket: PathBuf,
    /// One directory per sandbox with its agent socket (`PODS_DIR`); under `/run`, gone at reboot.
    pub pods_dir: PathBuf,
    /// What must last: journal, cluster id, certificate authority.
    pub state_dir: PathBuf,
    /// The owner of everything made; `None`: the id kept in `state_dir`, made at first start.
    pub cluster_id: Option<ClusterId>,
    /// TCP port of the guest's end of the agent link (`FORWARDER_PORT`).
    pub agent_port: u16,
    /// UDP port of the tunnel (`VXLAN_PORT`).
    pub vxlan_port: u16,
    /// Lowest VXLAN network identifier handed out.
    pub vxlan_min_id: u32,
    /// VMs this node may have at once, those being removed included (`PEERPODS_LIMIT_PER_NODE`); `None`: no limit.
    pub limit_per_node: Option<u32>,
    /// Budget of a start: from StartVM to the agent's answer (`PROXY_TIMEOUT`).
    pub start_deadline: Duration,
    /// A sandbox that was created and not started for so long is unwound; no StopVM comes for it.
    pub unstarted_ttl: Duration,
    /// A sandbox whose network namespace has been gone for so long is unwound: its pod is over, whoever forgot to say so.
    pub netns_gone_ttl: Duration,
    /// A sandbox whose shim process is gone for so long, with nobody at its agent socket, is unwound: nobody is left to stop it.
    pub shim_gone_ttl: Duration,
    /// This node's name, put on every VM as a tag: the orphan sweep deletes no VM of another node.
    pub node: String,
    /// What becomes of VMs of this node that no sandbox owns.
    pub gc: Collection,
    /// How often they are looked for, give or take a tenth.
    pub gc_interval: Duration,
    /// How long such a VM must have been seen before it is deleted.
    pub gc_grace: Duration,
    /// How often sandboxes are looked at for a vanished network namespace or an expired [`Config::unstarted_ttl`].
    pub sweep_interval: Duration,
    /// How often it is made sure that others are kept out of the tunnels, give or take a tenth.
    pub keep_interval: Duration,
    /// How long starts in flight may go on after the service was asked to end; then they are unwound. The process ends some seconds
    /// later at the latest, so 20 s fit the 30 s that Kubernetes gives a container.
    pub drain_timeout: Duration,
    /// The worker interface whose address the guest sends tunnel packets to; `None`: the one with the default route.
    pub host_interface: Option<String>,
    /// How VMs prove themselves to their links (`PEERPODS_GUEST_IDENTITY`).
    pub guest_identity: GuestIdentity,
    /// Initdata for pods that bring none (`INITDATA`): base64 of gzip of TOML, checked at start.
    pub initdata: Option<String>,
    /// Whether pods reach the cloud's metadata services (`PEERPODS_POD_METADATA_ACCESS`). Says what the guest is told; the worker's end
    /// of the tunnel is given its own by whoever makes it.
    pub metadata_access: MetadataAccess,
    /// The time of day.
    pub clock: WallClock,
}

/// How VMs prove themselves to their links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GuestIdentity {
    /// By a one-time token where the provider knows that the image's guest can; else as [`GuestIdentity::Stock`].
    #[default]
    Auto,
    /// By a one-time token and a key the VM makes, whatever is known of the image. A stock guest does not come up then.
    Token,
    /// By a certificate whose key is in user data.
    Stock,
}

/// What becomes of VMs that no sandbox owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Collection {
    /// They are not looked for.
    Off,
    /// The log says what would be deleted.
    DryRun,
    /// They are deleted.
    #[default]
    On,
}

/// The kernel's name of this host; `localhost` when it has none.
#[must_use]
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

impl Config {
    /// Where the shim of a sandbox looks for the agent.
    #[must_use]
    pub fn agent_socket(&self, sandbox: &SandboxId) -> PathBuf {
        self.pods_dir.join(sandbox.as_str()).join("agent.ttrpc")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: "/run/peerpod/hypervisor.sock".into(),
            pods_dir: "/run/peerpod/pods".into(),
            state_dir: "/var/lib/peerpod".into(),
            cluster_id: None,
            agent_port: 15150,
            vxlan_port: 9000,
            vxlan_min_id: 555_000,
            limit_per_node: Some(10),
            start_deadline: Duration::from_secs(300),
            unstarted_ttl: Duration::from_secs(600),
            netns_gone_ttl: Duration::from_secs(30),
            shim_gone_ttl: Duration::from_secs(30),
            node: host_name(),
            gc: Collection::On,
            gc_interval: Duration::from_secs(60),
            gc_grace: Duration::from_secs(120),
            sweep_interval: Duration::from_secs(10),
            keep_interval: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(20),
            host_interface: None,
            guest_identity: GuestIdentity::default(),
            initdata: None,
            metadata_access: MetadataAccess::default(),
            clock: WallClock::default(),
        }
    }
}
