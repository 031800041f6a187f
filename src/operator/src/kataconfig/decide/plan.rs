//! What a decision comes to. Carrying it out is `act`'s work.

use std::collections::BTreeMap;
use std::time::Duration;

use peerpods_crds::KataConfigStatus;

use crate::objects::{Desired, Removal};

/// What is to be done, in this order.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// What becomes of our finalizer.
    pub finalizer: Finalizer,
    /// Objects to apply before nodes get their labels.
    pub first: Vec<Desired>,
    /// Labels of nodes.
    pub roles: Vec<Role>,
    /// Labels of nodes where our own pods place files.
    pub labels: Vec<Labels>,
    /// Objects to apply then.
    pub apply: Vec<Desired>,
    /// Objects that are not to be there.
    pub delete: Vec<Removal>,
    /// The status.
    pub status: KataConfigStatus,
    /// When to look again although nothing happened.
    pub again: Option<Duration>,
}

/// What becomes of our finalizer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Finalizer {
    /// It stays as it is.
    #[default]
    Leave,
    /// It is to be there.
    Add,
    /// It is to go, after all else of the plan.
    Remove,
}

/// A node whose role changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// The node.
    pub node: String,
    /// Whether it has our role from now on.
    pub has: bool,
}

/// A node whose labels change: each to a value, or to none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The node.
    pub node: String,
    /// The labels.
    pub change: BTreeMap<&'static str, Option<&'static str>>,
}
