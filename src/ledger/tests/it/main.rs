//! The ledger against an API server in this process, alone and together with the operator's half.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bench;
mod both_halves;
mod peer_pods;
