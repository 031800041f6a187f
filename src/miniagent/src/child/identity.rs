//! Who the process is: limits, user, groups, capabilities.

use std::fs;
use std::path::Path;

use nix::unistd::{Gid, Uid, fchown, setgroups, setresgid, setresuid};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
};

use crate::control::Failure;
use crate::plan::{Capabilities, ProcessPlan, ResourceKind, RlimitPlan};

/// Sets the score for the out-of-memory killer. A wish, not a condition: lowering it takes a right the agent may lack.
pub(super) fn set_oom_score(score: i32) {
    let _ = fs::write("/proc/self/oom_score_adj", score.to_string());
}

/// Enters the working directory, making it where it is missing.
pub(super) fn enter_directory(path: &Path) -> Result<(), Failure> {
    let what = || format!("enter the directory {path:?}");
    if !path.is_dir() {
        fs::create_dir_all(path).map_err(|error| Failure::setup(what(), error))?;
    }
    nix::unistd::chdir(path).map_err(|error| Failure::setup(what(), error))
}

/// Becomes who the plan says. There is no way back.
pub(super) fn assume(process: &ProcessPlan) -> Result<(), Failure> {
    process.rlimits.iter().try_for_each(limit)?;
    give_streams(process);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    if let Some(capabilities) = &process.capabilities {
        bound(capabilities)?;
    }
    change_user(process)?;
    if let Some(capabilities) = &process.capabilities {
        hold(capabilities)?;
    }
    if process.no_new_privileges {
        set_no_new_privs(true).map_err(|error| Failure::setup("forbid new privileges", error))?;
    }
    Ok(())
}

/// A program may open its streams anew by path (/dev/stdout), which takes ownership where the user is not root.
fn give_streams(process: &ProcessPlan) {
    let user = Some(Uid::from_raw(process.uid));
    let _ = fchown(std::io::stdin(), user, None);
    let _ = fchown(std::io::stdout(), user, None);
    let _ = fchown(std::io::stderr(), user, None);
}

fn change_user(process: &ProcessPlan) -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    let what = || format!("become user {uid} of group {gid}");
    let groups: Vec<Gid> = process.groups.iter().copied().map(Gid::from_raw).collect();
    let keep = process.capabilities.is_some();
    set_keep_capabilities(keep).map_err(|error| Failure::setup(what(), error))?;
    setgroups(&groups)
        .and_then(|()| setresgid(gid, gid, gid))
        .and_then(|()| setresuid(uid, uid, uid))
        .map_err(|error| Failure::setup(what(), error))?;
    set_keep_capabilities(false).map_err(|error| Failure::setup(what(), error))
}

/// The capabilities this kernel knows.
fn known() -> impl Iterator<Item = u32> {
    let text = fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap_or_default();
    // A container without /proc: 40 is the last one of every kernel since 5.9.
    0..=text.trim().parse().unwrap_or(40)
}

fn single(number: u32) -> CapabilitySet {
    CapabilitySet::from_bits_retain(1 << number)
}

fn bound(capabilities: &Capabilities) -> Result<(), Failure> {
    for number in known().filter(|number| capabilities.bounding >> number & 1 == 0) {
        remove_capability_from_bounding_set(single(number))
            .map_err(|error| Failure::setup(format!("drop capability {number}"), error))?;
    }
    Ok(())
}

fn hold(capabilities: &Capabilities) -> Result<(), Failure> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(capabilities.effective),
        permitted: CapabilitySet::from_bits_retain(capabilities.permitted),
        inheritable: CapabilitySet::from_bits_retain(capabilities.inheritable),
    };
    set_capabilities(None, sets).map_err(|error| Failure::setup("set capabilities", error))?;
    clear_ambient_capability_set().map_err(|error| Failure::setup("clear ambient capabilities", error))?;
    for number in known().filter(|number| capabilities.ambient >> number & 1 == 1) {
        configure_capability_in_ambient_set(single(number), true)
            .map_err(|error| Failure::setup(format!("set ambient capability {number}"), error))?;
    }
    Ok(())
}

fn limit(plan: &RlimitPlan) -> Result<(), Failure> {
    let finite = |value: u64| (value != u64::MAX).then_some(value);
    let limits = Rlimit { current: finite(plan.soft), maximum: finite(plan.hard) };
    setrlimit(resource(plan.resource), limits)
        .map_err(|error| Failure::setup(format!("limit {:?}", plan.resource), error))
}

fn resource(kind: ResourceKind) -> Resource {
    match kind {
        ResourceKind::Cpu => Resource::Cpu,
        ResourceKind::Fsize => Resource::Fsize,
        ResourceKind::Data => Resource::Data,
        ResourceKind::Stack => Resource::Stack,
        ResourceKind::Core => Resource::Core,
        ResourceKind::Rss => Resource::Rss,
        ResourceKind::Nproc => Resource::Nproc,
        ResourceKind::Nofile => Resource::Nofile,
        ResourceKind::Memlock => Resource::Memlock,
        ResourceKind::As => Resource::As,
        ResourceKind::Locks => Resource::Locks,
        ResourceKind::Sigpending => Resource::Sigpending,
        ResourceKind::Msgqueue => Resource::Msgqueue,
        ResourceKind::Nice => Resource::Nice,
        ResourceKind::Rtprio => Resource::Rtprio,
        ResourceKind::Rttime => Resource::Rttime,
    }
}
