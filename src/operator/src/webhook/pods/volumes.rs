//! Volumes: which cannot work in a VM of its own, and which work otherwise than on a node.
//!
//! The shim shares no file system with the VM. What a container mounts is copied into it when the container starts: regular files,
//! directories and symbolic links (`facts/kata.md`), and for ConfigMaps, Secrets, projected and downward API volumes again when they
//! change. So what is none of these cannot be there, and what is written does not come back.

use k8s_openapi::api::core::v1::{HostPathVolumeSource, PodSpec, Volume};

use super::containers::{self, Member};
use crate::webhook::faults::{Fault, shown};

/// The node's kernel, seen as files. Copying them has no meaning and no end.
const OF_THE_NODES_KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];

/// Volumes and mounts that cannot work.
pub(super) fn faults(spec: &PodSpec) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (n, volume) in spec.volumes.iter().flatten().enumerate() {
        faults.extend(volume_fault(n, volume));
    }
    for member in containers::all(spec) {
        for n in 0..member.container.volume_devices.iter().flatten().count() {
            faults.push(Fault::new(
                format!("{}.volumeDevices[{n}]", member.field),
                "the node's block devices do not reach the pod's VM; mount a volume with a file system instead",
            ));
        }
        faults.extend(mount_faults(&member));
    }
    faults
}

fn volume_fault(n: usize, volume: &Volume) -> Option<Fault> {
    if let Some(source) = &volume.host_path {
        return host_path_fault(n, source);
    }
    let medium = volume.empty_dir.as_ref().and_then(|source| source.medium.as_deref())?;
    medium.starts_with("HugePages").then(|| {
        Fault::new(
            format!("spec.volumes[{n}].emptyDir.medium"),
            format!("{}: the node's huge pages do not reach the pod's VM; use Memory", shown(medium)),
        )
    })
}

fn host_path_fault(n: usize, source: &HostPathVolumeSource) -> Option<Fault> {
    let kind = source.type_.as_deref().unwrap_or_default();
    if matches!(kind, "Socket" | "CharDevice" | "BlockDevice") {
        return Some(Fault::new(
            format!("spec.volumes[{n}].hostPath.type"),
            format!(
                "{kind}: the pod runs in a VM of its own, where a socket or device of the node cannot be; only files and directories are copied into it"
            ),
        ));
    }
    let path = clean(&source.path);
    let within =
        |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    (path == "/" || OF_THE_NODES_KERNEL.iter().any(|root| within(root))).then(|| {
        Fault::new(
            format!("spec.volumes[{n}].hostPath.path"),
            format!(
                "{}: the pod runs in a VM of its own with a kernel of its own; the node's /dev, /proc and /sys cannot be copied into it",
                shown(&source.path)
            ),
        )
    })
}

/// The path without empty parts and dots. Kubernetes refuses `..` itself.
fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

fn mount_faults(member: &Member<'_>) -> Vec<Fault> {
    let mounts = member.container.volume_mounts.iter().flatten().enumerate();
    let both_ways = mounts.filter(|(_, mount)| mount.mount_propagation.as_deref() == Some("Bidirectional"));
    both_ways
        .map(|(n, _)| {
            Fault::new(
                format!("{}.volumeMounts[{n}].mountPropagation", member.field),
                "Bidirectional: what is mounted in the pod's VM cannot appear on the node",
            )
        })
        .collect()
}

/// Names of volumes that the node mounts. Their files are copied into the VM, so what is written to them is lost with it, unless their
/// driver attaches them to the VM, which a pod does not tell.
pub(super) fn copied(spec: &PodSpec) -> Vec<&str> {
    spec.volumes
        .iter()
        .flatten()
        .filter(|volume| is_mounted_by_the_node(volume))
        .map(|volume| volume.name.as_str())
        .collect()
}

fn is_mounted_by_the_node(volume: &Volume) -> bool {
    [
        volume.host_path.is_some(),
        volume.persistent_volume_claim.is_some(),
        volume.ephemeral.is_some(),
        volume.csi.is_some(),
        volume.nfs.is_some(),
        volume.iscsi.is_some(),
        volume.fc.is_some(),
        volume.cephfs.is_some(),
        volume.rbd.is_some(),
        volume.glusterfs.is_some(),
        volume.cinder.is_some(),
        volume.flex_volume.is_some(),
        volume.portworx_volume.is_some(),
        volume.aws_elastic_block_store.is_some(),
        volume.azure_disk.is_some(),
        volume.azure_file.is_some(),
        volume.gce_persistent_disk.is_some(),
        volume.vsphere_volume.is_some(),
    ]
    .contains(&true)
}
