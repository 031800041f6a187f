//! The provider against real QEMU processes, taps and bridges. Needs root and a built image (`make test` sets the variable); every
//! test has a bridge, a subnet and directories of its own, so that tests run beside one another and beside a real service.
#![expect(clippy::unwrap_used, clippy::panic, reason = "what tests share panics as tests do")]

mod contract;
mod crash;
mod guest;
mod host;
mod refusals;
mod site;
