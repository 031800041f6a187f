//! The real daemon with the AWS provider, and the real client `peerpods sandbox run`, before moto: one sandbox is one instance, also
//! when the daemon is killed between any two calls to EC2.
//!
//! ```text
//!   a network namespace for each life                                  outside
//!   sandbox run ─▶ peerpods hypervisor ─▶ proxy ──────────▶ relay ─────▶ moto
//!                        │                  └ far: counts, kills, starts the guest of a new instance
//!                        └──────── 15150, 9000 ───────────▶ guest end (peerpods-guest, miniagent)
//! ```
//!
//! The proxy and what it corrects are those of the provider's own tests. Needs root, moto (`make aws-test`) and the guest programs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "the provider's own tests use the rest of it")]
#[path = "../../../../providers/aws/tests/moto/beyond.rs"]
mod beyond;
#[allow(dead_code, reason = "the provider's own tests use the rest of it")]
#[path = "../../../../providers/aws/tests/moto/buckets.rs"]
mod buckets;
#[path = "../../../../providers/aws/tests/moto/form.rs"]
mod form;
#[allow(dead_code, reason = "the provider's own tests use the rest of it")]
#[path = "../../../../providers/aws/tests/moto/front.rs"]
mod front;
#[allow(dead_code, reason = "the provider's own tests use the rest of it")]
#[path = "../../../../providers/aws/tests/moto/proxy.rs"]
mod proxy;
#[allow(dead_code, reason = "the provider's own tests use the rest of it")]
#[path = "../../../../providers/aws/tests/moto/server.rs"]
mod server;

mod far;
mod guests;
mod killed;
mod lives;
mod node;
mod plain;
mod relay;
