//! Questions about, and settings of, the VM itself.

use std::fs;
use std::io::{self, Write};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use peerpods_proto::ttrpc::agent::{AgentDetails, GuestDetailsRequest, GuestDetailsResponse};

use crate::error::AgentError;
use crate::storage;

/// What the agent and the VM can do.
#[must_use]
pub fn details(request: &GuestDetailsRequest) -> GuestDetailsResponse {
    let mut answer = GuestDetailsResponse::new();
    if request.mem_block_size {
        // Kernels without memory hot-plug have no such file; 0 says so.
        let text = fs::read_to_string("/sys/devices/system/memory/block_size_bytes").unwrap_or_default();
        answer.mem_block_size_bytes = u64::from_str_radix(text.trim(), 16).unwrap_or_default();
    }
    if request.mem_hotplug_probe {
        answer.support_mem_hotplug_probe = fs::exists("/sys/devices/system/memory/probe").unwrap_or_default();
    }
    answer.agent_details = Some(AgentDetails {
        version: env!("CARGO_PKG_VERSION").into(),
        init_daemon: std::process::id() == 1,
        storage_handlers: storage::DRIVERS.map(str::to_owned).to_vec(),
        supports_seccomp: false,
        ..Default::default()
    })
    .into();
    answer
}

/// Sets the VM's clock to seconds and microseconds since 1970.
///
/// # Errors
/// The kernel's answer.
pub fn set_clock(seconds: i64, microseconds: i64) -> Result<(), AgentError> {
    let fail = |source| AgentError::Guest { what: "set the clock", source };
    let nanoseconds = microseconds
        .checked_mul(1000)
        .ok_or_else(|| fail(io::Error::new(io::ErrorKind::InvalidInput, "microseconds out of range")))?;
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(seconds, nanoseconds)).map_err(|e| fail(e.into()))
}

/// Mixes data into the kernel's random numbers.
///
/// # Errors
/// The kernel's answer.
pub fn reseed(data: &[u8]) -> Result<(), AgentError> {
    let mix = || fs::OpenOptions::new().write(true).open("/dev/urandom")?.write_all(data);
    mix().map_err(|source| AgentError::Guest { what: "reseed the random numbers", source })
}
