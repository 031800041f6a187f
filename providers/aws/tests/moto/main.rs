//! The provider against moto's EC2 server, behind a proxy that records every call, injects AWS's errors and corrects moto where it is
//! not like AWS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod api_calls;
mod beyond;
mod buckets;
mod burst;
mod clock;
mod contract;
mod creation;
mod deaths;
mod examine;
mod form;
mod front;
mod ports;
mod proxy;
mod refusals;
mod server;
mod site;
mod spot;
mod visibility;
