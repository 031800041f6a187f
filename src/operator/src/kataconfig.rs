//! KataConfig: Kata Containers on the nodes of a cluster, by the machine config operator's hands.
//!
//! ```text
//!   observe   the cluster as plain data (`world`)
//!   decide    what is to be done (`decide`, with `selector`, `pools`, `nodes`, `status`, `build`; pure)
//!   act       apply, label, delete, write the status; tell what changed (`events`)
//! ```

pub mod act;
pub mod build;
pub mod controller;
pub mod decide;
pub mod events;
pub mod nodes;
pub mod observe;
pub mod pools;
pub mod selector;
pub mod status;
pub mod world;
