//! The worker end: the pod's interface joined to a VXLAN device in the pod's own network namespace.
//!
//! Owns, for each interface of a pod, the device [`device_name`] in the pod's namespace and the redirections between the two. The device's
//! UDP socket is in the namespace of the calling thread, the worker's. The pod's interface keeps its address: what it receives is
//! redirected before the namespace's own IP stack sees it. Routes and sysctls of the worker are left alone; who may send a
//! tunnel's packets is `guard`'s.
//!
//! The devices are ports of [`BRIDGE`], which is down and forwards nothing: of a bridge's port the kernel answers packets that are too
//! large for the underlay with "fragmentation needed" or "packet too big" (Linux 5.8 and later), so that path MTU discovery towards the
//! pod works. Without it they would be cut up on the underlay, where many networks drop the pieces.
//!
//! `interface` reads the pod's network, `plan` decides, this module observes and applies.

mod block;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod interface;
mod plan;

use std::net::IpAddr;
use std::path::Path;

use async_trait::async_trait;
use nix::errno::Errno;
use peerpods_podvm::metadata::MetadataAccess;
use peerpods_podvm::network::ObservedPod;

use self::block::Blocked;
use self::plan::{End, Side, State, Step};
use crate::guard::{self, Admitted};
use crate::kernel::{Link, LinkKind, Rtnl, failed, io_error, said};
use crate::netns::Netns;
use crate::probe::{self, Probe};
use crate::tunnel::{LaidTunnel, Tunnel, TunnelError, TunnelSpec};
use crate::vxlan::{self, NewDevice};

/// The bridge's name in a pod's namespace.
pub(crate) const BRIDGE: &str = "pp-pmtu";
/// Begins the names of the VXLAN devices in a pod's namespace.
const DEVICE: &str = "vxlan";

/// The VXLAN device's name of a pod's interface; for the primary one (0) the same as stock's, `vxlan1`.
fn device_name(ordinal: usize) -> String {
    format!("{DEVICE}{}", ordinal + 1)
}

/// Whether a device in a pod's namespace is of our making.
fn is_ours(link: &Link) -> bool {
    let numbered = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    let named = link.name.strip_prefix(DEVICE).is_some_and(numbered) || link.name.starts_with(vxlan::SPARE);
    link.name == BRIDGE || (named && matches!(link.kind, LinkKind::Vxlan(_)))
}

/// The worker end of pods' tunnels, in the kernel. Holds no state: all is read from the kernel at each call.
#[derive(Debug, Clone, Copy, Default)]
pub struct VxlanTunnel {
    metadata: MetadataAccess,
}

impl VxlanTunnel {
    /// The tunnels of the node whose network namespace the calling threads are in.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, whose pods have this access to the cloud's metadata services; without it they have none.
    #[must_use]
    pub fn with_metadata_access(metadata: MetadataAccess) -> Self {
        Self { metadata }
    }
}

#[async_trait]
impl Tunnel for VxlanTunnel {
    async fn observe(&self, netns: &Path) -> Result<ObservedPod, TunnelError> {
        let place = Netns::open(netns).await?;
        if place.is_own()? {
            return Err(TunnelError::HostNetwork { path: netns.to_owned() });
        }
        let pod = place.connect().await?;
        let (links, addresses, routes) = (pod.links().await?, pod.addresses().await?, pod.routes().await?);
        let found = interface::Found { netns, links: &links, addresses: &addresses, routes: &routes };
        let picked = interface::pick(&found)?;
        let neighbours = pod.permanent_neighbours(picked.primary.index).await?;
        let primary = interface::describe(&found, picked.primary, &neighbours)?;
        let (mut secondary, mut left_out) = (Vec::new(), picked.left_out);
        for link in picked.secondary {
            let neighbours = pod.permanent_neighbours(link.index).await?;
            match interface::describe(&found, link, &neighbours) {
                Ok(described) => secondary.push(described),
                Err(why) => left_out.push(why.to_string()),
            }
        }
        Ok(ObservedPod { primary, secondary, left_out })
    }

    async fn underlay_mtu(&self, worker: IpAddr) -> Result<Option<u32>, TunnelError> {
        Ok(Rtnl::here()?.link_with(worker).await?.map(|link| link.mtu))
    }

    async fn setup(&self, netns: &Path, spec: &TunnelSpec) -> Result<(), TunnelError> {
        let place = Place::open(netns).await?;
        let state = place.observe(spec).await?;
        let mut links = Links::of(&state);
        if links.pod.is_none() {
            return Err(no_interface(netns, spec));
        }
        // First: a device without its guard takes anybody's packets.
        guard::admit(admitted(netns, spec)).await?;
        let block = Blocked::new(spec.remote, self.metadata).program();
        for step in plan::setup(&state, spec, &block) {
            match place.apply(&step, spec, &mut links, &block).await {
                Err(error) if step.is_optional() => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(netns = %netns.display(), error, "senders will not be told of packets too large for the tunnel");
                    break;
                }
                done => done?,
            }
        }
        Ok(())
    }

    async fn teardown(&self, netns: &Path, spec: &TunnelSpec) -> Result<(), TunnelError> {
        let place = match Place::open(netns).await {
            // The kernel removes the device with its namespace, if a little later.
            Err(TunnelError::NoNetns { .. }) => return guard::withdraw(spec.vni, spec.port).await,
            other => other?,
        };
        let state = place.observe(spec).await?;
        let mut links = Links::of(&state);
        for step in plan::teardown(&state) {
            place.apply(&step, spec, &mut links, &[]).await?;
        }
        vxlan::remove_half_born(&place.pod_link, spec.vni).await?;
        guard::withdraw(spec.vni, spec.port).await
    }

    async fn verify(&self, netns: &Path, spec: &TunnelSpec, probe: Probe) -> Result<(), TunnelError> {
        probe::verify(&Netns::open(netns).await?, spec, probe).await
    }

    async fn keep(&self, laid: &(dyn Fn() -> Vec<LaidTunnel> + Sync)) -> Result<(), TunnelError> {
        guard::keep(|| laid().iter().map(|one| admitted(&one.netns, &one.spec)).collect()).await
    }

    async fn collect(&self) -> Result<(), TunnelError> {
        guard::collect().await
    }
}

/// Tries in the calling thread's network namespace, which must be one of the caller's own, what keeps pods from what is not theirs.
///
/// # Errors
/// One sentence: which step failed and what the kernel said.
pub async fn try_out_block() -> Result<(), String> {
    let place = Rtnl::here().map_err(|error| error.to_string())?;
    let said = |what: &'static str| move |error| format!("cannot {what}: {}", io_error(error));
    let program = Blocked::new(IpAddr::from([192, 0, 2, 1]), MetadataAccess::Blocked).program();
    let loopback = 1;
    place.add_ingress(loopback).await.map_err(said("make an ingress qdisc"))?;
    place.add_program(loopback, plan::PRIORITY, &program).await.map_err(said("add a cls_bpf filter"))?;
    place.remove_ingress(loopback).await.map_err(said("remove an ingress qdisc"))
}

fn admitted(netns: &Path, spec: &TunnelSpec) -> Admitted {
    let TunnelSpec { vni, port, remote: peer, .. } = *spec;
    Admitted { vni, port, peer, netns: Some(netns.to_owned()) }
}

fn no_interface(netns: &Path, spec: &TunnelSpec) -> TunnelError {
    let detail = format!("{} is not there", spec.pod_interface);
    TunnelError::NoInterface { path: netns.to_owned(), detail }
}

/// The numbers of the devices that steps are about; of what is made on the way, from then on.
struct Links {
    pod: Option<u32>,
    device: Option<u32>,
    bridge: Option<u32>,
}

impl Links {
    fn of(state: &State) -> Self {
        Self {
            pod: state.pod.as_ref().map(|pod| pod.link),
            device: state.device.as_ref().map(|device| device.index),
            bridge: state.bridge,
        }
    }
}

/// Both namespaces of one pod's tunnel, open.
struct Place {
    home: Netns,
    home_link: Rtnl,
    netns: Netns,
    pod_link: Rtnl,
}

impl Place {
    async fn open(netns: &Path) -> Result<Self, TunnelError> {
        let netns = Netns::open(netns).await?;
        let pod_link = netns.connect().await?;
        Ok(Self { home: Netns::own()?, home_link: Rtnl::here()?, netns, pod_link })
    }

    async fn observe(&self, spec: &TunnelSpec) -> Result<State, TunnelError> {
        let pod = match self.pod_link.link(&spec.pod_interface).await? {
            Some(link) => Some(Side {
                link: link.index,
                mtu: link.mtu,
                received: self.pod_link.received(link.index).await?,
            }),
            None => None,
        };
        let name = device_name(spec.ordinal);
        let device = vxlan::find(&self.pod_link, &self.home, &name).await?;
        let device_received = match &device {
            Some(found) => self.pod_link.received(found.index).await?,
            None => crate::kernel::tc::Received::default(),
        };
        let links = self.pod_link.links().await?;
        let bridge = links.iter().find(|l| l.name == BRIDGE).map(|l| l.index);
        let others = links.iter().any(|l| is_ours(l) && l.name != BRIDGE && l.name != name);
        Ok(State { pod, device, device_received, bridge, others })
    }

    async fn apply(
        &self,
        step: &Step,
        spec: &TunnelSpec,
        links: &mut Links,
        block: &[u8],
    ) -> Result<(), TunnelError> {
        let place = self.netns.path().display();
        tracing::debug!(netns = %place, vni = spec.vni, ?step, "pod tunnel");
        // Zero is the number of no device.
        let Links { pod, device, bridge } = *links;
        let (pod, device) = (pod.unwrap_or_default(), device.unwrap_or_default());
        let index = |end: End| if end == End::Pod { pod } else { device };
        let done = match step {
            Step::CreateDevice { vxlan, mtu } => {
                let name = device_name(spec.ordinal);
                let device = NewDevice { name, vxlan: vxlan.clone(), mtu: *mtu, mac: None };
                return self.create(&device, links).await;
            }
            Step::RemoveDevice { link } | Step::RemoveBridge { link } => {
                self.pod_link.remove_link(*link).await
            }
            Step::AddBridge => {
                let made = self.pod_link.add_bridge(BRIDGE).await;
                links.bridge = self.pod_link.link(BRIDGE).await?.map(|link| link.index);
                made
            }
            Step::JoinBridge => self.pod_link.set_controller(device, bridge.unwrap_or_default()).await,
            Step::SetMtu { mtu } => self.pod_link.set_mtu(device, *mtu).await,
            Step::SetUp => self.pod_link.set_up(device).await,
            Step::AddQdisc(end) => self.pod_link.add_ingress(index(*end)).await,
            Step::RemoveQdisc(end) => self.pod_link.remove_ingress(index(*end)).await,
            Step::RemoveFilter(end, filter) => self.pod_link.remove_filter(index(*end), filter).await,
            Step::AddRedirect(end) => {
                self.pod_link.add_redirect(index(*end), index(end.other()), end.priority()).await
            }
            Step::AddBlock => self.pod_link.add_program(device, plan::PRIORITY, block).await,
            Step::ReplaceBlock(old) => self.pod_link.replace_program(device, old, block).await,
        };
        match done {
            Err(error) if step.is_block() && said(&error, &[Errno::ENOENT]) => {
                let what = "a kernel without the classifier cls_bpf (modprobe cls_bpf): the pod could not be kept from its VM \
                            and from metadata services";
                Err(TunnelError::Unsupported { what: what.to_owned() })
            }
            done => done.map_err(failed(format!("{step} (pod interface {} in {place})", spec.pod_interface))),
        }
    }

    async fn create(&self, device: &NewDevice, links: &mut Links) -> Result<(), TunnelError> {
        vxlan::create(&self.home_link, &self.netns, &self.pod_link, device).await?;
        let Some(born) = self.pod_link.link(&device.name).await? else { return Ok(()) };
        links.device = Some(born.index);
        // Nothing but the pod's frames may cross: the guest guards its end only when it is there.
        let quiet = self.pod_link.no_own_address(born.index).await;
        let place = self.netns.path().display();
        quiet.map_err(failed(format!("keep {} in {place} without an address", device.name)))
    }
}
