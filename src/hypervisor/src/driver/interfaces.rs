//! The pod's interfaces in a sandbox's life: their VXLAN identifiers, what the guest is told of them, their tunnels, and whether these
//! carry what was promised.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use peerpods_podnet::probe::{GuestKind, TooSmall};
use peerpods_podnet::{Probe, TunnelError, TunnelSpec};
use peerpods_podvm::network::{Carried, ObservedPod, PodInterface, PodNetwork, tunnel_mtu};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{info, warn};

use super::start::Start;
use crate::context::Context;
use crate::failure::Failure;
use crate::path_mtu::Lesson;
use crate::record::{GuestForm, Record, SecondaryRecord, TunnelRecord};

/// How long the kernel is given to remove the devices of a namespace that is gone, and other programs to be done with the firewall.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(200);

/// A pod's network in a few words.
pub(super) fn summary(pod: &ObservedPod) -> String {
    let names: Vec<String> = std::iter::once(&pod.primary)
        .chain(&pod.secondary)
        .map(|interface| format!("{} {}", interface.name, interface.address))
        .collect();
    names.join(", ")
}

/// Gives each further interface of the pod an identifier, in the record; those of interfaces that are gone are given back. Tells whether
/// the record has to be written. No tunnel may be laid yet.
pub(super) fn assign(context: &Context, record: &mut Record, pod: &ObservedPod) -> Result<bool, Failure> {
    let wanted = |one: &SecondaryRecord| pod.secondary.iter().any(|i| i.name == one.pod_interface);
    let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut record.secondary).into_iter().partition(wanted);
    let mut changed = !gone.is_empty();
    context.vnis.release(gone.into_iter().map(|one| one.vni));
    record.secondary = kept;
    for interface in &pod.secondary {
        if record.secondary.iter().any(|one| one.pod_interface == interface.name) {
            continue;
        }
        let vni = context.vnis.take().ok_or_else(|| Failure::Denied {
            sandbox: record.sandbox.clone(),
            reason: "no VXLAN network identifier is left on this node".into(),
        })?;
        record.secondary.push(SecondaryRecord { pod_interface: interface.name.clone(), vni });
        changed = true;
    }
    Ok(changed)
}

/// The tunnels that a record says may exist, the primary interface's first.
pub(crate) fn tunnel_specs(record: &Record) -> Vec<TunnelSpec> {
    let Some(tunnel) = &record.tunnel else { return Vec::new() };
    let primary = (record.vni, &tunnel.pod_interface);
    let others = record.secondary.iter().map(|one| (one.vni, &one.pod_interface));
    let spec = |(ordinal, (vni, pod_interface)): (usize, (u32, &String))| TunnelSpec {
        vni,
        port: record.vxlan_port,
        local: tunnel.local,
        remote: tunnel.remote,
        pod_interface: pod_interface.clone(),
        ordinal,
    };
    std::iter::once(primary).chain(others).enumerate().map(spec).collect()
}

/// Only ours makes its key and proves itself by a token.
fn guest_kind(record: &Record) -> GuestKind {
    match record.guest {
        Some(GuestForm::Token { .. }) => GuestKind::Ours,
        Some(GuestForm::Stock) | None => GuestKind::Unknown,
    }
}

impl Start {
    /// Has every interface of the pod on record, and says what of it comes to no guest.
    pub(super) async fn assign(&mut self, pod: &ObservedPod) -> Result<(), Failure> {
        for why in &pod.left_out {
            warn!(sandbox = %self.record.sandbox, why, "left out of the pod's network");
        }
        if assign(&self.context, &mut self.record, pod)? {
            self.write().await?;
        }
        Ok(())
    }

    /// What the network to VMs carries, by what the provider says, this node's interface shows and earlier starts found out.
    pub(super) async fn underlay_mtu(&self) -> Result<u32, Failure> {
        let ready = self.context.ready()?;
        let own = self.context.parts.tunnel.underlay_mtu(ready.worker_address.addr()).await;
        let own = own.map_err(|source| self.network(source))?.unwrap_or(u32::MAX);
        let told = ready.facts.underlay_mtu;
        let promised = told.min(own);
        let Some(lesson) = self.context.path_mtu.smallest(Instant::now()).filter(|l| l.carried < promised)
        else {
            return Ok(promised);
        };
        let Lesson { network, carried, vm, .. } = lesson;
        warn!(
            sandbox = %self.record.sandbox, told, own, carried, %network, taught_by = vm,
            "a VM's network was found to carry less than it should, and a new VM may be there: using that for ten minutes from then on; \
             compare the MTUs on the way to that VM (its interface, peering, gateways, VPN), or set the smallest on the node's interface"
        );
        Ok(carried)
    }

    /// What the guest is told of the pod's network.
    pub(super) fn pod_network(&self, pod: &ObservedPod, underlay_mtu: u32) -> Result<PodNetwork, Failure> {
        let worker = self.context.ready()?.worker_address;
        let carried = |vxlan_id: u32, interface: &PodInterface| {
            let mut interface = interface.clone();
            let mtu = tunnel_mtu(interface.mtu, underlay_mtu, worker.addr());
            if worker.addr().is_ipv6() && mtu < interface.mtu {
                // IPv6 does not cut up the tunnel's packets, and there is no telling senders that do not ask.
                let (sandbox, name, plugin) = (&self.record.sandbox, &interface.name, interface.mtu);
                warn!(%sandbox, interface = %name, plugin, mtu, "datagrams to the pod larger than its MTU are lost; give the network plugin this MTU");
            }
            interface.mtu = mtu;
            Carried { vxlan_id, interface }
        };
        let vni_of = |interface: &PodInterface| {
            self.record.secondary.iter().find(|one| one.pod_interface == interface.name).map(|one| one.vni)
        };
        let others = pod.secondary.iter().filter_map(|i| Some(carried(vni_of(i)?, i))).collect();
        let primary = carried(self.record.vni, &pod.primary);
        let network = PodNetwork::new(primary, others, worker, self.record.vxlan_port);
        let beyond = network.beyond_stock().join(", ");
        if !beyond.is_empty() {
            info!(sandbox = %self.record.sandbox, beyond, "a stock guest image would leave this out of the pod's network");
        }
        Ok(network)
    }

    /// Has the tunnels on record, before anything of them is made.
    pub(super) async fn record_tunnel(&mut self, pod: &ObservedPod, remote: IpAddr) -> Result<(), Failure> {
        let worker = self.context.ready()?.worker_address.addr();
        if worker.is_ipv4() != remote.is_ipv4() {
            let what = format!(
                "a tunnel from {worker} to the VM's {remote}: both need addresses of one family (choose the node's interface with host-interface)"
            );
            return Err(self.network(TunnelError::Unsupported { what }));
        }
        // An address that the provider named may be one that somebody translates: then no packet can leave from it.
        let own = self.context.parts.tunnel.underlay_mtu(worker).await.map_err(|e| self.network(e))?;
        let local = own.map(|_| worker);
        self.record.tunnel = Some(TunnelRecord { pod_interface: pod.primary.name.clone(), remote, local });
        self.write().await
    }

    pub(super) async fn lay_tunnel(&self) -> Result<(), Failure> {
        let began = Instant::now();
        let specs = tunnel_specs(&self.record);
        for spec in &specs {
            self.set_up_tunnel(spec, began).await.map_err(|source| self.network(source))?;
        }
        let vnis: Vec<String> = specs.iter().map(|spec| spec.vni.to_string()).collect();
        self.publisher.phase("tunnel laid", began, format!("VNI {}", vnis.join(", ")));
        Ok(())
    }

    /// An identifier in use may be that of a pod whose namespace the kernel is still removing; and other programs of this node do not
    /// change its firewall for ever.
    async fn set_up_tunnel(&self, spec: &TunnelSpec, began: Instant) -> Result<(), TunnelError> {
        loop {
            match self.context.parts.tunnel.setup(&self.record.netns, spec).await {
                Err(TunnelError::VniInUse { .. } | TunnelError::Overtaken { .. })
                    if began.elapsed() < PATIENCE =>
                {
                    tokio::time::sleep(POLL).await;
                }
                done => return done,
            }
        }
    }

    /// Sees full packets pass both ways; `guest_up` is answered when the guest must be there.
    pub(super) async fn verify_tunnel(
        &self,
        primary: &PodInterface,
        underlay_mtu: u32,
        guest_up: oneshot::Receiver<()>,
    ) -> Result<(), Failure> {
        let Some(spec) = tunnel_specs(&self.record).into_iter().next() else { return Ok(()) };
        let local = self.context.ready()?.worker_address.addr();
        let probe = Probe {
            local,
            pod: primary.address.addr(),
            mac: primary.mac,
            mtu: tunnel_mtu(primary.mtu, underlay_mtu, local),
            guest: guest_kind(&self.record),
            guest_up,
        };
        let netns: &Path = &self.record.netns;
        let verified = self.context.parts.tunnel.verify(netns, &spec, probe).await;
        verified.map_err(|source| {
            if let TunnelError::PathMtu(TooSmall { remote, carried: Some(carried), .. }) = &source {
                let vm = &self.record.vm_name;
                self.context.path_mtu.learn(*remote, *carried, vm, Instant::now());
            }
            self.network(source)
        })
    }

    fn network(&self, source: TunnelError) -> Failure {
        Failure::Network { sandbox: self.record.sandbox.clone(), source: source.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::a_record;

    #[test]
    fn every_interface_on_record_has_a_tunnel_with_a_device_of_its_own() {
        let mut record = a_record("a");
        assert_eq!(tunnel_specs(&record), []);
        let remote = "10.0.0.2".parse().unwrap();
        record.tunnel = Some(TunnelRecord { pod_interface: "eth0".into(), remote, local: None });
        record.secondary = vec![SecondaryRecord { pod_interface: "net1".into(), vni: 555_007 }];
        let shown: Vec<_> = tunnel_specs(&record)
            .into_iter()
            .map(|spec| (spec.ordinal, spec.vni, spec.pod_interface, spec.remote))
            .collect();
        assert_eq!(shown, [(0, 555_000, "eth0".into(), remote), (1, 555_007, "net1".into(), remote)]);
    }
}
