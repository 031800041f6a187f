//! From StartVM to an agent that answers: identity → user data → VM → address → tunnel → link. Every step is recorded before it
//! has an effect, so this future may be dropped anywhere.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use peerpods_agentlink::{Connected, GuestTrust, LinkIdentity, LinkTarget, Opened};
use peerpods_podvm::guest_config::ApfConfig;
use peerpods_podvm::initdata::InitData;
use peerpods_podvm::network::ObservedPod;
use peerpods_podvm::token::{AdmissionToken, GuestKey};
use peerpods_podvm::user_data::{APF_PATH, CloudConfig, File, INITDATA_PATH};
use peerpods_provider::{Console, Instance, NODE_TAG, UserData, VmSize, VmSpec, VmState};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::warn;

use super::console::tail;
use super::identity::form_of;
use super::link_spec;
use super::sweep::{MISSING_PASSES, why_gone};
use super::unwind::may_be_missed;
use crate::backoff::Backoff;
use crate::context::Context;
use crate::failure::{ConsoleTail, Failure};
use crate::record::{GUEST_TAG, GuestForm, InstanceRecord, Record, Stage};
use crate::state::Publisher;

/// Pauses between the questions whether the VM still lives while its agent is waited for.
const FIRST_ALIVE: Duration = Duration::from_secs(1);
const LONGEST_ALIVE: Duration = Duration::from_secs(5);
/// Left of the start's budget for the link's own answer to arrive.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// The start of one sandbox.
pub(super) struct Start {
    pub(super) context: Arc<Context>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) record: Record,
    pub(super) console: Option<Console>,
    pub(super) deadline: Instant,
    /// By which the guest will be admitted; kept no longer than the start.
    pub(super) token: Option<AdmissionToken>,
}

/// Starts the VM and answers the record of a running sandbox.
pub(super) async fn start(
    context: Arc<Context>,
    publisher: Arc<Publisher>,
    record: Record,
    began: Instant,
) -> Result<Record, Failure> {
    let budget = context.config.start_deadline;
    let mut start =
        Start { context, publisher, record, console: None, deadline: began + budget, token: None };
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
        self.assign(&pod).await?;
        let underlay_mtu = self.underlay_mtu().await?;
        let link = self.open_link().await?;
        self.choose_identity(link).await?;
        let spec = self.spec(&pod, underlay_mtu)?;
        let (instance, remote) = self.make_vm(&spec).await?;
        self.record_tunnel(&pod, remote).await?;
        let (up, guest_up) = oneshot::channel();
        // While the VM boots, the tunnel is laid and tried all along: at the agent's answer nothing is left to wait for.
        let network = async {
            self.lay_tunnel().await?;
            self.verify_tunnel(&pod.primary, underlay_mtu, guest_up).await
        };
        let ((), guest_key) = tokio::try_join!(biased; network, self.reach_agent(&instance, remote, up))?;
        self.token = None;
        if let Some(key) = guest_key {
            self.record.guest = Some(GuestForm::Token { key: Some(key) });
        }
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
    async fn open_link(&self) -> Result<Opened, Failure> {
        let opened = self.context.parts.link.open(&link_spec(&self.record)).await;
        opened.map_err(|source| Failure::Link {
            sandbox: self.record.sandbox.clone(),
            console: ConsoleTail::default(),
            source: source.into(),
        })
    }

    async fn observe(&self) -> Result<ObservedPod, Failure> {
        let observed = self.context.parts.tunnel.observe(&self.record.netns).await;
        observed.map_err(|source| Failure::Network {
            sandbox: self.record.sandbox.clone(),
            source: source.into(),
        })
    }

    fn spec(&self, pod: &ObservedPod, underlay_mtu: u32) -> Result<VmSpec, Failure> {
        let began = Instant::now();
        let user_data = self.user_data(pod, underlay_mtu)?;
        let request = &self.record.request;
        let detail = format!("{} bytes, {}", user_data.len(), form_of(self.token.as_ref()));
        self.publisher.phase("user data made", began, detail);
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
                (GUEST_TAG.to_owned(), self.record.guest.map_or("", GuestForm::name).to_owned()),
                ("namespace".to_owned(), request.pod_namespace.clone()),
                ("pod".to_owned(), request.pod_name.clone()),
                (NODE_TAG.to_owned(), self.context.config.node.clone()),
            ]),
        })
    }

    fn user_data(&self, pod: &ObservedPod, underlay_mtu: u32) -> Result<String, Failure> {
        let request = &self.record.request;
        let apf = ApfConfig {
            pod_network: Some(self.pod_network(pod, underlay_mtu)?),
            pod_namespace: request.pod_namespace.clone(),
            pod_name: request.pod_name.clone(),
            blocked_addresses: self.context.config.metadata_access.blocked().to_vec(),
            ..self.identify()?
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

    /// Records what is known of the VM, when that is news. What is known with an address is recorded with the tunnel to it.
    pub(super) async fn note(&mut self, instance: &Instance) -> Result<(), Failure> {
        if let Some(Console::File(path)) = &instance.console {
            self.publisher.console(path.display().to_string());
        }
        let known = InstanceRecord { id: instance.id.clone(), addresses: instance.addresses.clone() };
        if self.record.instance.as_ref() == Some(&known) {
            return Ok(());
        }
        self.record.instance = Some(known);
        if !instance.addresses.is_empty() && instance.state != VmState::Stopped {
            self.publisher.record(&self.record);
            return Ok(());
        }
        self.write().await
    }

    /// Waits for the agent's answer over the link, or for the VM's end, whichever is first. Answers the key that a guest admitted by token
    /// is known by from now on.
    async fn reach_agent(
        &self,
        instance: &Instance,
        remote: IpAddr,
        up: oneshot::Sender<()>,
    ) -> Result<Option<GuestKey>, Failure> {
        let began = Instant::now();
        let left = self.deadline.saturating_duration_since(began).saturating_sub(ANSWER_MARGIN);
        let trust = self.first_trust();
        let target = target(&self.context, &self.record, remote, trust, left);
        let target = target.map_err(|e| self.certificate(e))?;
        let spec = link_spec(&self.record);
        let connected = tokio::select! {
            biased;
            connected = self.context.parts.link.connect(&spec, &target) => connected,
            () = self.until_dead() => return Err(self.died(instance).await),
        };
        match connected {
            Ok(connected) => {
                self.tell_connected(began, &connected);
                // Nobody listens when the tunnel was seen to work already.
                let _known = up.send(());
                Ok(connected.guest_key)
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
        let why = why_gone(&self.context, &self.record.key()).await;
        let (sandbox, vm) = (self.record.sandbox.clone(), instance.id.clone());
        Failure::VmDied { sandbox, vm, during: " while starting", why, console }
    }

    pub(super) fn certificate(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
        Failure::Certificate { sandbox: self.record.sandbox.clone(), source: source.into() }
    }

    pub(super) async fn write(&self) -> Result<(), Failure> {
        // Published first: a start that is called off during the write must be unwound with what may be on disk.
        self.publisher.record(&self.record);
        let written = self.context.parts.journal.append(&self.record).await;
        written.map_err(|source| Failure::Journal { sandbox: self.record.sandbox.clone(), source })
    }
}

/// Where a sandbox's guest is and how the link knows it, with a fresh client certificate.
pub(super) fn target(
    context: &Context,
    record: &Record,
    remote: IpAddr,
    guest: GuestTrust,
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
        guest,
        deadline,
    })
}
