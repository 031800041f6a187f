//! From StartVM to an agent that answers: certificate → user data → VM → address → tunnel → link. Every step is recorded before it
//! has an effect, so this future may be dropped anywhere.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use peerpods_agentlink::{Connected, LinkIdentity, LinkTarget};
use peerpods_podnet::{TunnelError, TunnelSpec};
use peerpods_podvm::guest_config::{ApfConfig, SecretText};
use peerpods_podvm::initdata::InitData;
use peerpods_podvm::network::{PodInterface, PodNetwork};
use peerpods_podvm::user_data::{APF_PATH, CloudConfig, File, INITDATA_PATH};
use peerpods_provider::{Console, Instance, NODE_TAG, UserData, VmSize, VmSpec, VmState};
use tokio::time::Instant;
use tracing::warn;

use super::console::tail;
use super::link_spec;
use super::sweep::MISSING_PASSES;
use super::unwind::may_be_missed;
use crate::backoff::Backoff;
use crate::context::Context;
use crate::failure::{ConsoleTail, Failure};
use crate::record::{InstanceRecord, Record, Stage, TunnelRecord};
use crate::state::Publisher;

/// Pauses between the questions whether the VM still lives while its agent is waited for.
const FIRST_ALIVE: Duration = Duration::from_secs(1);
const LONGEST_ALIVE: Duration = Duration::from_secs(5);
/// How long the kernel is given to remove the devices of a namespace that is gone.
const VNI_PATIENCE: Duration = Duration::from_secs(5);
const VNI_POLL: Duration = Duration::from_millis(200);
/// Left of the start's budget for the link's own answer to arrive.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// The start of one sandbox.
pub(super) struct Start {
    pub(super) context: Arc<Context>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) record: Record,
    pub(super) console: Option<Console>,
    pub(super) deadline: Instant,
}

/// Starts the VM and answers the record of a running sandbox.
pub(super) async fn start(
    context: Arc<Context>,
    publisher: Arc<Publisher>,
    record: Record,
    began: Instant,
) -> Result<Record, Failure> {
    let budget = context.config.start_deadline;
    let mut start = Start { context, publisher, record, console: None, deadline: began + budget };
    let ended = tokio::time::timeout_at(start.deadline, start.run(began)).await;
    match ended {
        Ok(Ok(())) => Ok(start.record),
        Ok(Err(failure)) => Err(failure),
        Err(_elapsed) => Err(Failure::Deadline {
            sandbox: start.record.sandbox.clone(),
            budget,
            reached: start.publisher.reached().to_owned(),
            console: tail(start.console.as_ref()).await,
        }),
    }
}

impl Start {
    async fn run(&mut self, began: Instant) -> Result<(), Failure> {
        self.publisher.phase("start recorded", began, String::new());
        self.wait_until_ready().await?;
        let pod = self.observe().await?;
        let spec = self.spec(&pod)?;
        self.open_link().await?;
        let (instance, remote) = self.make_vm(&spec).await?;
        self.lay_tunnel(&pod, remote).await?;
        self.reach_agent(&instance, remote).await?;
        let recording = Instant::now();
        self.record.stage = Stage::Running;
        self.write().await?;
        self.publisher.phase("running recorded", recording, String::new());
        Ok(())
    }

    /// After a restart the provider may not have answered yet whether it is usable.
    async fn wait_until_ready(&self) -> Result<(), Failure> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.context.readiness.within(left.saturating_sub(ANSWER_MARGIN)).await.map(drop)
    }

    /// The link process may be gone since CreateVM; better known before there is a VM.
    async fn open_link(&self) -> Result<(), Failure> {
        let opened = self.context.parts.link.open(&link_spec(&self.record)).await;
        opened.map_err(|source| Failure::Link {
            sandbox: self.record.sandbox.clone(),
            console: ConsoleTail::default(),
            source: source.into(),
        })
    }

    async fn observe(&self) -> Result<PodInterface, Failure> {
        let observed = self.context.parts.tunnel.observe(&self.record.netns).await;
        observed.map_err(|source| Failure::Network {
            sandbox: self.record.sandbox.clone(),
            source: source.into(),
        })
    }

    fn spec(&self, pod: &PodInterface) -> Result<VmSpec, Failure> {
        let began = Instant::now();
        let user_data = self.user_data(pod)?;
        let request = &self.record.request;
        self.publisher.phase("user data made", began, format!("{} bytes", user_data.len()));
        Ok(VmSpec {
            name: self.record.vm_name.clone(),
            image: request.image.clone(),
            machine_type: request.machine_type.clone(),
            size: VmSize {
                vcpus: request.vcpus.unwrap_or(0),
                memory_mib: request.memory_mib.unwrap_or(0),
                gpus: request.gpus,
            },
            user_data: UserData::new(user_data),
            tags: BTreeMap::from([
                ("namespace".to_owned(), request.pod_namespace.clone()),
                ("pod".to_owned(), request.pod_name.clone()),
                (NODE_TAG.to_owned(), self.context.config.node.clone()),
            ]),
        })
    }

    fn user_data(&self, pod: &PodInterface) -> Result<String, Failure> {
        let authority = &self.context.authority;
        let server = authority.issue_server(&self.record.vm_name).map_err(|e| self.certificate(e))?;
        let request = &self.record.request;
        let apf = ApfConfig {
            pod_network: Some(self.pod_network(pod)?),
            pod_namespace: request.pod_namespace.clone(),
            pod_name: request.pod_name.clone(),
            tls_server_key: Some(SecretText::new(server.expose_key())),
            tls_server_cert: Some(server.certificate.clone()),
            tls_client_ca: Some(authority.certificate_pem().to_owned()),
            tls_min_version: None,
            tls_cipher_suites: Vec::new(),
            blocked_addresses: self.context.config.metadata_access.blocked().to_vec(),
        };
        let mut files = vec![File::new(APF_PATH, apf.to_json())];
        let given = request.initdata.as_ref().map(InitData::encode);
        if let Some(initdata) = given.or_else(|| self.context.config.initdata.clone()) {
            files.push(File::new(INITDATA_PATH, initdata));
        }
        let document = CloudConfig::new(files);
        let invalid = |e: &dyn std::fmt::Display| {
            Failure::Invalid(format!("user data of sandbox {}: {e}", self.record.sandbox))
        };
        let text = document.render().map_err(|e| invalid(&e))?;
        document
            .check_size(text.len(), self.context.ready()?.facts.user_data_limit)
            .map_err(|e| invalid(&e))?;
        Ok(text)
    }

    fn pod_network(&self, pod: &PodInterface) -> Result<PodNetwork, Failure> {
        let ready = self.context.ready()?;
        Ok(PodNetwork {
            podip: pod.address,
            pod_hw_addr: pod.mac,
            interface: pod.name.clone(),
            worker_node_ip: ready.worker_address,
            tunnel_type: "vxlan".into(),
            routes: pod.routes.clone(),
            neighbors: pod.neighbors.clone(),
            mtu: tunnel_mtu(pod.mtu, ready.facts.underlay_mtu),
            index: 0,
            vxlan_port: self.record.vxlan_port,
            vxlan_id: self.record.vni,
            dedicated: false,
            external_net_via_pod_vm: false,
        })
    }

    /// Records what is known of the VM, when that is news.
    pub(super) async fn note(&mut self, instance: &Instance) -> Result<(), Failure> {
        if let Some(Console::File(path)) = &instance.console {
            self.publisher.console(path.display().to_string());
        }
        let known = InstanceRecord { id: instance.id.clone(), addresses: instance.addresses.clone() };
        if self.record.instance.as_ref() == Some(&known) {
            return Ok(());
        }
        self.record.instance = Some(known);
        self.write().await
    }

    async fn lay_tunnel(&mut self, pod: &PodInterface, remote: IpAddr) -> Result<(), Failure> {
        let began = Instant::now();
        self.record.tunnel = Some(TunnelRecord { pod_interface: pod.name.clone(), remote });
        self.write().await?;
        let Some(spec) = tunnel_spec(&self.record) else { return Ok(()) };
        let laid = self.set_up_tunnel(&spec, began).await;
        laid.map_err(|source| Failure::Network {
            sandbox: self.record.sandbox.clone(),
            source: source.into(),
        })?;
        self.publisher.phase("tunnel laid", began, format!("VNI {}", spec.vni));
        Ok(())
    }

    /// An identifier in use may be that of a pod whose namespace the kernel is still removing.
    async fn set_up_tunnel(&self, spec: &TunnelSpec, began: Instant) -> Result<(), TunnelError> {
        loop {
            match self.context.parts.tunnel.setup(&self.record.netns, spec).await {
                Err(TunnelError::VniInUse { .. }) if began.elapsed() < VNI_PATIENCE => {
                    tokio::time::sleep(VNI_POLL).await;
                }
                done => return done,
            }
        }
    }

    /// Waits for the agent's answer over the link, or for the VM's end, whichever is first.
    async fn reach_agent(&self, instance: &Instance, remote: IpAddr) -> Result<(), Failure> {
        let began = Instant::now();
        let left = self.deadline.saturating_duration_since(began).saturating_sub(ANSWER_MARGIN);
        let target = target(&self.context, &self.record, remote, left).map_err(|e| self.certificate(e))?;
        let spec = link_spec(&self.record);
        let connected = tokio::select! {
            biased;
            connected = self.context.parts.link.connect(&spec, &target) => connected,
            () = self.until_dead() => return Err(self.died(instance).await),
        };
        match connected {
            Ok(connected) => {
                self.tell_connected(began, &connected);
                Ok(())
            }
            Err(source) => Err(Failure::Link {
                sandbox: self.record.sandbox.clone(),
                console: tail(self.console.as_ref()).await,
                source: source.into(),
            }),
        }
    }

    fn tell_connected(&self, began: Instant, connected: &Connected) {
        let dials = format!("{} dials", connected.attempts);
        self.publisher.phase_between("agent port open", began, connected.port_open_after, dials);
        let agent = connected.agent_after.saturating_sub(connected.port_open_after);
        let from = began + connected.port_open_after;
        self.publisher.phase_between("agent answered", from, agent, String::new());
    }

    /// Returns when the provider says that the VM no longer runs, or does not know it several times in a row. An unanswered question is no answer.
    async fn until_dead(&self) {
        let key = self.record.key();
        let mut pauses = Backoff::new(FIRST_ALIVE, LONGEST_ALIVE);
        let (mut missing, mut hint) = (0, None);
        while missing < MISSING_PASSES {
            tokio::time::sleep(pauses.next(hint)).await;
            hint = None;
            match self.context.parts.provider.get(&key).await {
                Ok(Some(instance)) if instance.state == VmState::Stopped => return,
                Ok(Some(_)) => missing = 0,
                Ok(None) if self.may_be_unseen() => {}
                Ok(None) => missing += 1,
                Err(e) => {
                    hint = e.retry_after;
                    warn!(sandbox = %key.sandbox, error = %e, "cannot ask whether the VM lives");
                }
            }
        }
    }

    /// Whether the provider may not show yet what it made.
    pub(super) fn may_be_unseen(&self) -> bool {
        !may_be_missed(&self.context, &self.record).is_zero()
    }

    pub(super) async fn died(&self, instance: &Instance) -> Failure {
        let console = tail(instance.console.as_ref()).await;
        let (sandbox, vm) = (self.record.sandbox.clone(), instance.id.clone());
        Failure::VmDied { sandbox, vm, during: " while starting", console }
    }

    fn certificate(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
        Failure::Certificate { sandbox: self.record.sandbox.clone(), source: source.into() }
    }

    pub(super) async fn write(&self) -> Result<(), Failure> {
        // Published first: a start that is called off during the write must be unwound with what may be on disk.
        self.publisher.record(&self.record);
        let written = self.context.parts.journal.append(&self.record).await;
        written.map_err(|source| Failure::Journal { sandbox: self.record.sandbox.clone(), source })
    }
}

/// VXLAN over IPv4 adds 50 bytes to a frame of the underlay.
const VXLAN_OVERHEAD: u32 = 50;

/// The largest packet the pod can send without the tunnel's packets being fragmented on the way to the VM.
fn tunnel_mtu(pod: u32, underlay: u32) -> u32 {
    pod.min(underlay.saturating_sub(VXLAN_OVERHEAD))
}

/// The tunnel that a record says may exist.
pub(super) fn tunnel_spec(record: &Record) -> Option<TunnelSpec> {
    record.tunnel.as_ref().map(|tunnel| TunnelSpec {
        vni: record.vni,
        port: record.vxlan_port,
        remote: tunnel.remote,
        pod_interface: tunnel.pod_interface.clone(),
    })
}

/// Where a sandbox's guest is and how the link knows it, with a fresh client certificate.
pub(super) fn target(
    context: &Context,
    record: &Record,
    remote: IpAddr,
    deadline: Duration,
) -> Result<LinkTarget, peerpods_agentlink::ca::CaError> {
    let client = context.authority.issue_client(record.sandbox.as_str())?;
    Ok(LinkTarget {
        address: (remote, context.config.agent_port).into(),
        server_name: record.vm_name.clone(),
        identity: LinkIdentity {
            certificate: client.certificate.clone(),
            key: client.expose_key().to_owned(),
            authority: context.authority.certificate_pem().to_owned(),
        },
        deadline,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_never_sends_more_than_the_tunnel_carries() {
        assert_eq!(tunnel_mtu(1500, 1500), 1450);
        assert_eq!(tunnel_mtu(1400, 1500), 1400);
        assert_eq!(tunnel_mtu(9000, 9001), 8951);
    }
}
