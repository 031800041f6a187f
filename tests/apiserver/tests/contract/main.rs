//! What `kube`'s client may rely on. Runs against the test API server, and with `PEERPODS_TEST_CLUSTER=1` against the cluster of
//! `KUBECONFIG`, which has to have a controller manager. What only the test API server can do (`knobs`, `roles`) is skipped there.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

mod applying;
mod collection;
mod custom;
mod knobs;
mod kubectl;
mod objects;
mod place;
mod roles;
mod watching;
mod webhooks;
