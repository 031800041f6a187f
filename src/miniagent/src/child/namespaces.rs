//! Leaving and joining namespaces. The process namespace is entered before the fork, because only children get into it; everything
//! else after it, so that the waiting parent stays with the agent.

use std::fs::File;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sched::{CloneFlags, setns, unshare};

use crate::control::Failure;
use crate::plan::{NamespaceKind, NamespacePlan};

/// The process namespace of a new container.
pub(super) fn before_fork(plans: &[NamespacePlan]) -> Result<(), Failure> {
    plans.iter().filter(|plan| plan.kind == NamespaceKind::Pid).try_for_each(enter)
}

/// All other namespaces of a new container. Those with a path come first: their paths are the agent's.
pub(super) fn after_fork(plans: &[NamespacePlan]) -> Result<(), Failure> {
    let others = || plans.iter().filter(|plan| plan.kind != NamespaceKind::Pid);
    others().filter(|plan| plan.path.is_some()).try_for_each(enter)?;
    others().filter(|plan| plan.path.is_none()).try_for_each(enter)
}

fn enter(plan: &NamespacePlan) -> Result<(), Failure> {
    let flag = flag(plan.kind);
    let Some(path) = &plan.path else {
        return unshare(flag)
            .map_err(|error| Failure::setup(format!("make a {:?} namespace", plan.kind), error));
    };
    let what = || format!("join the {:?} namespace {path:?}", plan.kind);
    let namespace = File::open(path).map_err(|error| Failure::setup(what(), error))?;
    setns(&namespace, flag).map_err(|error| Failure::setup(what(), error))
}

fn flag(kind: NamespaceKind) -> CloneFlags {
    match kind {
        NamespaceKind::Pid => CloneFlags::CLONE_NEWPID,
        NamespaceKind::Network => CloneFlags::CLONE_NEWNET,
        NamespaceKind::Mount => CloneFlags::CLONE_NEWNS,
        NamespaceKind::Ipc => CloneFlags::CLONE_NEWIPC,
        NamespaceKind::Uts => CloneFlags::CLONE_NEWUTS,
        NamespaceKind::Cgroup => CloneFlags::CLONE_NEWCGROUP,
    }
}

/// The process namespace of the process behind `pidfd`, an inherited descriptor.
pub(super) fn join_before_fork(pidfd: RawFd) -> Result<(), Failure> {
    #[expect(unsafe_code, reason = "a descriptor's number is all that survives exec")]
    // SAFETY: the agent passed this open descriptor to us alone; it is closed in `join_after_fork`.
    let pidfd = unsafe { BorrowedFd::borrow_raw(pidfd) };
    setns(pidfd, CloneFlags::CLONE_NEWPID)
        .map_err(|error| Failure::setup("join the container's process namespace", error))
}

/// All other namespaces of the process behind `pidfd`, and with its mount namespace its root. Closes the descriptor.
pub(super) fn join_after_fork(pidfd: RawFd) -> Result<(), Failure> {
    #[expect(unsafe_code, reason = "a descriptor's number is all that survives exec")]
    // SAFETY: the agent passed this open descriptor to us alone, and it is not used after this.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let rest = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    setns(&pidfd, rest).map_err(|error| Failure::setup("join the container's namespaces", error))
}
