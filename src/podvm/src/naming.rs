//! Names derived from pods and sandboxes.
//!
//! The VM's name is a wire format: the worker and the guest's certificate both carry it, stock parts and their tests expect it.

use sha2::{Digest, Sha256};

use crate::SandboxId;

/// The longest VM name every provider of ours takes; also the longest DNS label.
pub const VM_NAME_MAX: usize = 63;
/// The longest network interface name the kernel takes (`IFNAMSIZ` without the NUL).
pub const INTERFACE_NAME_MAX: usize = 15;

const VM_PREFIX: &str = "podvm";
/// `podvm`, two dashes and eight characters of the sandbox id.
const VM_NAME_FIXED: usize = 15;
const TAP_PREFIX: &str = "ppt";
/// Bytes of hash in a tap's name: as many as fit.
const TAP_HASH_BYTES: usize = 6;

/// `podvm-<pod>-<first 8 of the sandbox id>` in lowercase letters, digits and `-`, the pod's name cut so that the whole has at most
/// `max` characters (for `max` ≥ 15).
///
/// The name is a valid DNS label, because it is the name in the VM's certificate. It need not be unique: the key of a VM is the
/// sandbox id.
#[must_use]
pub fn vm_name(pod: &str, sandbox: &SandboxId, max: usize) -> String {
    let pod: String = pod.chars().map(label_char).take(max.saturating_sub(VM_NAME_FIXED)).collect();
    let short: String = sandbox.short().chars().map(label_char).collect();
    // A label must not end in '-'. Runtimes' ids are hexadecimal, so this only ever touches ids made by hand.
    let short = match short.trim_end_matches('-') {
        "" => "0",
        kept => kept,
    };
    format!("{VM_PREFIX}-{pod}-{short}")
}

fn label_char(c: char) -> char {
    match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() => c,
        _ => '-',
    }
}

/// The name of the tap device of a sandbox's VM: the same for the same sandbox, and different for different ones (48 bits of hash).
#[must_use]
pub fn tap_name(sandbox: &SandboxId) -> String {
    let hash = Sha256::digest(sandbox.as_str());
    let short: String = hash.iter().take(TAP_HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
    format!("{TAP_PREFIX}{short}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::hostile::any_text;

    fn id(text: &str) -> SandboxId {
        text.parse().unwrap()
    }

    #[test]
    fn the_name_is_the_one_stock_parts_expect() {
        let sandbox = id(&"0123456789abcdef".repeat(4));
        assert_eq!(vm_name("nginx", &sandbox, VM_NAME_MAX), "podvm-nginx-01234567");
        assert_eq!(vm_name("My.Pod_é", &sandbox, VM_NAME_MAX), "podvm-my-pod---01234567");
    }

    #[test]
    fn only_the_pod_part_is_cut_and_only_when_the_whole_is_too_long() {
        let sandbox = id("0123456789abcdef");
        let fits = vm_name(&"p".repeat(48), &sandbox, VM_NAME_MAX);
        assert_eq!(fits, format!("podvm-{}-01234567", "p".repeat(48)));
        assert_eq!(fits.len(), VM_NAME_MAX);
        assert_eq!(vm_name(&"p".repeat(49), &sandbox, VM_NAME_MAX), fits);
        assert_eq!(vm_name(&"p".repeat(49), &sandbox, 47), format!("podvm-{}-01234567", "p".repeat(32)));
        assert_eq!(vm_name("pod", &sandbox, 3), "podvm--01234567");
    }

    #[test]
    fn an_id_made_by_hand_still_gives_a_dns_label() {
        assert_eq!(vm_name("pod", &id("Demo_box-1"), VM_NAME_MAX), "podvm-pod-demo-box");
        assert_eq!(vm_name("pod", &id("___"), VM_NAME_MAX), "podvm-pod-0");
    }

    #[test]
    fn tap_names_fit_and_differ_for_ids_that_share_a_beginning() {
        let names: HashSet<String> = (0..2_000).map(|n| tap_name(&id(&format!("sandbox-{n}")))).collect();
        assert_eq!(names.len(), 2_000);
        assert!(names.iter().all(|name| name.len() == INTERFACE_NAME_MAX), "{names:?}");
        assert_eq!(tap_name(&id("a")), "pptca978112ca1b");
    }

    proptest! {
        #[test]
        fn any_pod_and_sandbox_give_a_dns_label(
            pod in any_text(), sandbox in "[A-Za-z0-9_.-]{3,64}", max in 15_usize..=63,
        ) {
            prop_assume!(sandbox.parse::<SandboxId>().is_ok());
            let name = vm_name(&pod, &id(&sandbox), max);
            prop_assert!(name.len() <= max, "{name} is longer than {max}");
            prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            prop_assert!(!name.ends_with('-') && name.starts_with("podvm-"));
        }
    }
}
