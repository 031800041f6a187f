//! The controllers as they run, against an API server in this process. What only a machine config operator or a kubelet would do, the
//! tests do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod access;
mod applied;
mod away;
mod cluster;
mod guide;
mod kataconfig;
mod kubectl;
mod kubelet;
mod late;
mod lease;
mod limits;
mod objects;
mod openshift;
mod others;
mod peerpod;
mod peerpodconfig;
mod place;
mod plain;
mod refused;
mod strangers;
mod tidy;
mod webhook;
mod webhook_operator;
mod webhook_process;
