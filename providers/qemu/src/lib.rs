//! Pod VMs as QEMU processes of this host.
//!
//! One detached QEMU per VM, booted directly into the image's kernel, connected by a tap to a bridge that exists as long as there is
//! a VM. This service may die and come back at any moment: what there is stands in one record a VM, written before anything is made,
//! and everything else is named by the VM's key. Nothing is configured on the host beyond bridge and taps: no forwarding, no
//! firewall rule, no DHCP; VMs reach the worker and not one another.
//!
//! ```text
//!   state_dir/lock                  byte-range locks: the host, and each VM
//!   state_dir/records/<stem>.json   one VM (no secrets)
//!   state_dir/console/<stem>.log    its serial console
//!   run_dir/<stem>/                 qmp.sock, pid, user-data (until QEMU has read it)
//!   run_dir/accel.json              result of the KVM probe
//! ```
//!
//! Steps of a birth (`birth.rs`): record → bridge → tap → files → QEMU → record again. Of a death (`removal.rs`): QEMU → tap → files →
//! bridge with the last VM → record.

pub mod accel;
mod addresses;
mod birth;
mod caller;
mod command;
mod config;
mod failure;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod holding;
mod image;
mod lock;
mod look;
mod net;
mod places;
mod process;
mod program;
mod provider;
mod qmp;
mod record;
mod removal;
#[cfg(test)]
mod slow;
mod subnet;
mod tap;
mod verify;

pub use config::{Accel, QemuConfig};
pub use image::{Image, ImageError};
pub use provider::QemuProvider;
