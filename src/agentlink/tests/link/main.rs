//! The whole link: the real `peerpods-link`, real TLS, the real guest end, and a ttrpc server in place of the agent.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what the tests share fails the test by panicking, as the tests do"
)]

mod admission;
mod bulk;
mod detach;
mod ends;
mod fake_systemd;
mod flight;
mod garbage;
mod limits;
mod memory;
mod namespaces;
mod network;
mod path;
mod pressure;
mod real_systemd;
mod scripted;
mod session;
mod stock;
mod support;
mod throughput;
mod trust;
mod units;
mod upgrade;
mod wire;
