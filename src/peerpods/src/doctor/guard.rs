//! What keeps others out of pods' tunnels, and pods from what is not theirs: tried out, and judged.

use super::checks::{bad, ok};
use super::netlink::in_a_namespace;
use super::{Facts, Finding, Level};

/// How tunnels are guarded on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Only a tunnel's peer can send into its pod, and connection tracking is spared.
    Whole,
    /// Only a tunnel's peer can; this kernel's nf_tables has no `notrack`.
    Tracked,
}

/// Makes the tunnels' nftables table in a network namespace of its own, and removes both. Blocks.
///
/// # Errors
/// One sentence: what the kernel lacks.
pub fn try_out_tunnels() -> Result<Guard, String> {
    in_a_namespace(async {
        let spared = peerpods_podnet::guard::try_out().await?;
        Ok(if spared { Guard::Whole } else { Guard::Tracked })
    })
}

/// Makes the filter that keeps pods from metadata services in a network namespace of its own, and removes both. Blocks.
///
/// # Errors
/// One sentence: which step failed and what the kernel said.
pub fn try_out_pods() -> Result<(), String> {
    in_a_namespace(peerpods_podnet::try_out_block())
}

/// Only a warning: tunnels work without.
pub(super) fn tunnels(facts: &Facts) -> Finding {
    const CHECK: &str = "nftables";
    match &facts.guard {
        Ok(Guard::Whole) => ok(CHECK, "tunnels are guarded; `nft list table inet peerpods` shows how"),
        Ok(Guard::Tracked) => ok(
            CHECK,
            "tunnels are guarded; this kernel's nf_tables has no notrack, so their packets may be tracked",
        ),
        Err(reason) => bad(
            CHECK,
            Level::Warning,
            format!("tunnels work, but whoever can send to the tunnel port can send into pods: {reason}"),
            "load the module (modprobe nf_tables), or let only VMs send to vxlan-port by other means",
        ),
    }
}

/// An error: no tunnel is laid without.
pub(super) fn pods(facts: &Facts) -> Finding {
    const CHECK: &str = "pod-block";
    match &facts.block {
        Ok(()) => ok(CHECK, "pods can be kept from their VM's own addresses and from metadata services"),
        Err(reason) => {
            bad(CHECK, Level::Error, reason, "load the modules (modprobe sch_ingress, modprobe cls_bpf)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::checks::tests::healthy;
    use super::*;

    #[test]
    fn without_nftables_tunnels_work_and_the_node_is_warned() {
        let with = |guard| tunnels(&Facts { guard, ..healthy() });
        assert_eq!(with(Err("no".to_owned())).level, Level::Warning);
        assert!(with(Err("no".to_owned())).fix.is_some());
        assert_eq!(with(Ok(Guard::Tracked)).level, Level::Ok);
        assert!(with(Ok(Guard::Tracked)).found.contains("notrack"));
    }

    #[test]
    fn without_the_classifier_no_pod_can_run() {
        let finding = pods(&Facts { block: Err("no".to_owned()), ..healthy() });
        assert!(finding.level == Level::Error && finding.fix.unwrap().contains("cls_bpf"));
    }
}
