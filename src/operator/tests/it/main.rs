//! The controllers as they run, against an API server in this process. What only a machine config operator or a kubelet would do, the
//! tests do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod cluster;
mod kataconfig;
mod openshift;
mod peerpodconfig;
mod webhook;
mod webhook_operator;
mod webhook_process;
mod webhook_real;
