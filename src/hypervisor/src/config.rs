//! What the node service is told at start. Plain data: reading files, environment and flags is the binary's work.

use std::path::PathBuf;
use std::time::Duration;

use peerpods_podvm::ClusterId;

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
    /// Budget of a start: from StartVM to the agent's answer (`PROXY_TIMEOUT`).
    pub start_deadline: Duration,
    /// A sandbox that was created and not started for so long is unwound; no StopVM comes for it.
    pub unstarted_ttl: Duration,
    /// A sandbox whose network namespace has been gone for so long is unwound: its pod is over, whoever forgot to say so.
    pub netns_gone_ttl: Duration,
    /// How often sandboxes are looked at for a vanished network namespace or an expired [`Config::unstarted_ttl`].
    pub sweep_interval: Duration,
    /// How long starts in flight may go on after the service was asked to end; then they are unwound. The process ends some seconds
    /// later at the latest, so 20 s fit the 30 s that Kubernetes gives a container.
    pub drain_timeout: Duration,
    /// The worker interface whose address the guest sends tunnel packets to; `None`: the one with the default route.
    pub host_interface: Option<String>,
    /// Initdata for pods that bring none (`INITDATA`): base64 of gzip of TOML, checked at start.
    pub initdata: Option<String>,
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
            start_deadline: Duration::from_secs(300),
            unstarted_ttl: Duration::from_secs(600),
            netns_gone_ttl: Duration::from_secs(30),
            sweep_interval: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(20),
            host_interface: None,
            initdata: None,
        }
    }
}
