//! The typed configuration of every role and command.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use peerpods_agentlink::process::placement::{Placement, Wanted};
use peerpods_hypervisor::config::{Collection, GuestIdentity};
use peerpods_podvm::ClusterId;
use peerpods_podvm::initdata::InitData;
use peerpods_podvm::metadata::MetadataAccess;
#[cfg(feature = "aws")]
use peerpods_provider_aws::AwsConfig;
use peerpods_provider_qemu::QemuConfig;

#[cfg(feature = "aws")]
use super::aws;
use super::door::{Door, Shown};
use super::fault::Faults;
use super::kinds::{self, Kind};
use super::operator::{self, OperatorSettings};
use super::qemu;
use crate::health;

/// A role of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The node service behind the shim's socket.
    Hypervisor,
    /// The controllers, and what the API server asks about their objects.
    Operator,
    /// What the API server asks about pods.
    Webhook,
}

/// The roles there are, by name.
pub const ROLES: &[(&str, Role)] =
    &[("hypervisor", Role::Hypervisor), ("operator", Role::Operator), ("webhook", Role::Webhook)];

/// Whether there is a cluster in which VMs are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kubernetes {
    /// Where this is a pod of one.
    Auto,
    /// Also with a kubeconfig.
    On,
    /// There is none.
    Off,
}

const KUBERNETES: &[(&str, Kubernetes)] =
    &[("auto", Kubernetes::Auto), ("on", Kubernetes::On), ("off", Kubernetes::Off)];

/// Who makes the VMs, with its own settings.
#[derive(Debug, Clone)]
pub enum ProviderSettings {
    /// QEMU processes on this host.
    Qemu(QemuConfig),
    /// EC2 instances.
    #[cfg(feature = "aws")]
    Aws(Box<AwsConfig>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProviderName {
    Qemu,
    #[cfg(feature = "aws")]
    Aws,
}

const PROVIDERS: &[(&str, ProviderName)] = &[
    ("qemu", ProviderName::Qemu),
    #[cfg(feature = "aws")]
    ("aws", ProviderName::Aws),
];

/// Where the node service of this program can have VMs on a cluster. QEMU's are processes of the host that it runs on: the container image
/// has no QEMU.
pub(super) fn clouds() -> Vec<String> {
    let elsewhere = PROVIDERS.iter().filter(|(_, provider)| *provider != ProviderName::Qemu);
    elsewhere.map(|(name, _)| (*name).to_owned()).collect()
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

/// Everything configurable, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What `peerpods run` runs.
    pub roles: Vec<Role>,
    /// Whether there is a cluster in which VMs are recorded.
    pub kubernetes: Kubernetes,
    /// The operator and the webhook.
    pub operator: OperatorSettings,
    /// Who makes the VMs.
    pub provider: ProviderSettings,
    /// The node service.
    pub hypervisor: peerpods_hypervisor::Config,
    /// Where health endpoints are served; `None`: nowhere.
    pub health_address: Option<SocketAddr>,
    /// `peerpods-link`, when it is not to be looked for.
    pub link_program: Option<PathBuf>,
    /// Where links run.
    pub link_placement: Placement,
    /// Where the `sandbox` client remembers what it made.
    pub client_dir: PathBuf,
    /// Which log lines; `None`: each command's own choice.
    pub log_level: Option<String>,
    /// Their form.
    pub log_format: LogFormat,
    /// Every key's effective value and source, in the order of the key table.
    pub shown: Vec<Shown>,
}

/// Reads every key through the door.
///
/// # Errors
/// All faults, when there are any.
pub fn assemble(mut door: Door) -> Result<Settings, Faults> {
    let roles = roles(&mut door);
    let kubernetes = door.take("kubernetes", Kubernetes::Auto, &KUBERNETES_MODE);
    let operator = operator::assemble(&mut door);
    let provider_name = door.take("provider", ProviderName::Qemu, &PROVIDER);
    let hypervisor = hypervisor(&mut door);
    door.take("tunnel-type", (), &TUNNEL_TYPE);
    let link_program = door.take_optional("link-program", &kinds::PROGRAM);
    let link_placement = link_placement(&mut door, &hypervisor.state_dir);
    let health_address = door.take("health-address", Some(health::DEFAULT_ADDRESS), &kinds::LISTEN);
    let client_dir = door.take("client-dir", PathBuf::from("/run/peerpod/client"), &kinds::PATH);
    let log_level = door.take_optional("log-level", &kinds::LOG_FILTER);
    let log_format = door.take("log-format", LogFormat::Text, &LOG_FORMAT);
    let qemu = qemu::assemble(&mut door);
    #[cfg(feature = "aws")]
    let aws = {
        let used = if provider_name == ProviderName::Aws { aws::Use::Chosen } else { aws::Use::Idle };
        aws::assemble(&mut door, used)
    };
    let provider = match provider_name {
        ProviderName::Qemu => ProviderSettings::Qemu(qemu),
        #[cfg(feature = "aws")]
        ProviderName::Aws => ProviderSettings::Aws(Box::new(aws)),
    };
    let (shown, faults) = door.close();
    if !faults.is_empty() {
        return Err(Faults(faults));
    }
    let shown = in_table_order(shown);
    Ok(Settings {
        roles,
        kubernetes,
        operator,
        provider,
        hypervisor,
        health_address,
        link_program,
        link_placement,
        client_dir,
        log_level,
        log_format,
        shown,
    })
}

const PROVIDER: Kind<ProviderName> = Kind {
    read: |w| {
        kinds::word(w, PROVIDERS).map_err(|expected| match w.line().as_str() {
            name @ "aws" => {
                format!("{expected}: this program was built without {name} (cargo feature {name})")
            }
            _ => expected,
        })
    },
    show: |name| kinds::name_of(*name, PROVIDERS).into(),
};

const KUBERNETES_MODE: Kind<Kubernetes> =
    Kind { read: |w| kinds::word(w, KUBERNETES), show: |mode| kinds::name_of(*mode, KUBERNETES).into() };

const LOG_FORMAT: Kind<LogFormat> = Kind {
    read: |w| kinds::word(w, LOG_FORMATS),
    show: |format| kinds::name_of(*format, LOG_FORMATS).into(),
};

const WHERE: &[(&str, Wanted)] =
    &[("auto", Wanted::Auto), ("systemd", Wanted::Systemd), ("detached", Wanted::Detached)];

const LINK_PLACEMENT: Kind<Wanted> =
    Kind { read: |w| kinds::word(w, WHERE), show: |wanted| kinds::name_of(*wanted, WHERE).into() };

const COLLECTIONS: &[(&str, Collection)] =
    &[("on", Collection::On), ("dry-run", Collection::DryRun), ("off", Collection::Off)];

const GC: Kind<Collection> =
    Kind { read: |w| kinds::word(w, COLLECTIONS), show: |mode| kinds::name_of(*mode, COLLECTIONS).into() };

const IDENTITIES: &[(&str, GuestIdentity)] =
    &[("auto", GuestIdentity::Auto), ("token", GuestIdentity::Token), ("stock", GuestIdentity::Stock)];

const GUEST_IDENTITY: Kind<GuestIdentity> =
    Kind { read: |w| kinds::word(w, IDENTITIES), show: |form| kinds::name_of(*form, IDENTITIES).into() };

const ACCESSES: &[(&str, MetadataAccess)] =
    &[("blocked", MetadataAccess::Blocked), ("allowed", MetadataAccess::Allowed)];

const METADATA: Kind<MetadataAccess> =
    Kind { read: |w| kinds::word(w, ACCESSES), show: |access| kinds::name_of(*access, ACCESSES).into() };

const TUNNEL_TYPE: Kind<()> = Kind { read: |w| kinds::word(w, &[("vxlan", ())]), show: |()| "vxlan".into() };

const CLUSTER_ID: Kind<ClusterId> = Kind { read: kinds::parsed, show: |id| id.as_str().into() };

/// Written as a whole number; a negative one means that there is no limit.
const LIMIT: Kind<Option<u32>> = Kind {
    read: |w| Ok(u32::try_from((kinds::WHOLE.read)(w)?).ok()),
    show: |limit| limit.map_or(-1, i64::from).into(),
};

const INITDATA: Kind<String> = Kind {
    read: |w| {
        let text = (kinds::TEXT.read)(w)?;
        match InitData::from_encoded(&text) {
            Ok(_) => Ok(text),
            Err(error) => Err(format!("expected base64 of gzip of an initdata TOML: {error}")),
        }
    },
    show: |text| text.clone().into(),
};

fn roles(door: &mut Door) -> Vec<Role> {
    let words = door.take("roles", vec!["hypervisor".to_owned()], &kinds::WORDS);
    let known: Vec<&str> = ROLES.iter().map(|(name, _)| *name).collect();
    let found: Vec<Option<Role>> =
        words.iter().map(|word| ROLES.iter().find(|(name, _)| name == word).map(|(_, role)| *role)).collect();
    for (word, role) in words.iter().zip(&found) {
        if role.is_none() {
            door.refuse("roles", format!("there is no role {word:?}; known roles: {}", known.join(", ")));
        }
    }
    if words.is_empty() {
        door.refuse("roles", format!("expected at least one role; known roles: {}", known.join(", ")));
    }
    let mut roles = Vec::new();
    for role in found.into_iter().flatten() {
        if !roles.contains(&role) {
            roles.push(role);
        }
    }
    roles
}

fn hypervisor(door: &mut Door) -> peerpods_hypervisor::Config {
    let default = peerpods_hypervisor::Config::default();
    peerpods_hypervisor::Config {
        socket: door.take("socket", default.socket, &kinds::SOCKET),
        pods_dir: door.take("pods-dir", default.pods_dir, &kinds::PODS_DIR),
        state_dir: door.take("state-dir", default.state_dir, &kinds::PATH),
        cluster_id: door.take_optional("cluster-id", &CLUSTER_ID),
        agent_port: door.take("forwarder-port", default.agent_port, &kinds::PORT),
        vxlan_port: door.take("vxlan-port", default.vxlan_port, &kinds::PORT),
        vxlan_min_id: door.take("vxlan-min-id", default.vxlan_min_id, &kinds::VNI),
        start_deadline: door.take("proxy-timeout", default.start_deadline, &kinds::DURATION),
        unstarted_ttl: door.take("unstarted-ttl", default.unstarted_ttl, &kinds::DURATION),
        netns_gone_ttl: door.take("netns-gone-ttl", default.netns_gone_ttl, &kinds::DURATION),
        shim_gone_ttl: door.take("shim-gone-ttl", default.shim_gone_ttl, &kinds::DURATION),
        node: door.take("node", default.node, &kinds::NODE),
        gc: door.take("gc", default.gc, &GC),
        gc_interval: door.take("gc-interval", default.gc_interval, &kinds::DURATION),
        gc_grace: door.take("gc-grace", default.gc_grace, &kinds::DURATION),
        sweep_interval: door.take("sweep-interval", default.sweep_interval, &kinds::DURATION),
        // Nobody gains by another.
        keep_interval: default.keep_interval,
        limit_per_node: door.take("peerpods-limit-per-node", default.limit_per_node, &LIMIT),
        drain_timeout: door.take("drain-timeout", default.drain_timeout, &kinds::DURATION),
        host_interface: door.take_optional("host-interface", &kinds::INTERFACE),
        guest_identity: door.take("guest-identity", default.guest_identity, &GUEST_IDENTITY),
        initdata: door.take_optional("initdata", &INITDATA),
        metadata_access: door.take("pod-metadata-access", default.metadata_access, &METADATA),
        clock: default.clock,
    }
}

fn link_placement(door: &mut Door, state_dir: &Path) -> Placement {
    let wanted = door.take("link-placement", Wanted::Auto, &LINK_PLACEMENT);
    let mut placement = Placement::new(wanted, state_dir);
    if let Some(socket) = door.take_optional("systemd-bus", &kinds::SOCKET) {
        placement.bus = socket;
    }
    placement
}

fn in_table_order(mut shown: Vec<Shown>) -> Vec<Shown> {
    let place = |key: &str| super::keys::KEYS.iter().position(|known| known.name == key);
    shown.sort_by_key(|shown| place(shown.key));
    shown
}
