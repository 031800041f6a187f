//! Pod VMs as EC2 instances.
//!
//! One `RunInstances` makes a VM with everything that belongs to it: disk, network interface, address and tags come and go with the
//! instance, so that there is never a half-made VM and never a side object of its own to collect. What there is stands in EC2: an
//! instance is found by its tags (`tags`), and a creation that is repeated is the same one by its client token (`token`). The
//! process remembers only what saves calls or what EC2 does not show yet (`births`).
//!
//! ```text
//!   decide (pure)                              act (calls EC2, all through `api`)
//!   config    what was configured              site      credentials, region, subnet, groups
//!   choice    which types fit                  catalog   sizes of types        (cached)
//!   placement which type and subnet next       image     what an AMI is        (cached)
//!   request   the RunInstances call            describe  where a VM is         (many questions, one call)
//!   failure   what an error means              creation, removal, verify
//!   prices    what is cheap                    spot      what spot instances cost       (cached)
//!   bucket    EC2's rates                      limiter   the line before a bucket
//!                                              api       the one door: turns, retries, errors
//! ```
//!
//! Not here: user data, names and admission (podvm), when a failed creation is tried again (hypervisor).

#![expect(
    clippy::result_large_err,
    reason = "the seam's own error is large, and every failure here costs a call to EC2"
)]

mod api;
mod births;
mod bucket;
mod catalog;
mod choice;
mod config;
mod creation;
mod describe;
pub mod examine;
mod failure;
mod found;
mod image;
mod limiter;
mod placement;
pub mod ports;
mod prices;
mod provider;
mod removal;
mod request;
mod site;
mod spot;
mod tags;
mod token;
mod verify;

pub use config::{AwsConfig, Confidential, LaunchRate, Market, PortsAtStart, PublicAddress};
pub use prices::Price;
pub use provider::AwsProvider;
