//! A Kubernetes API server in the test's own process: what `kube`'s client, watcher, `Controller` and finalizers need, and the refusals a
//! controller has to live with.
//!
//! ```text
//!  kube ──HTTP──▶ http ──▶ target ─┬─▶ read ──────────────────────────────────┐
//!                                  ├─▶ write: draft ──▶ admission ──▶ commit ──▶ store ──▶ watch
//!                                  └─▶ discovery                                ▲
//!                                        collect (owners, namespaces) ──────────┘
//! ```
//!
//! `store`, `read`, `write`, `fields`, `schema`, `cel` and `selector` are pure; `server`, `http`, `watch`, `collect` and `admission` do the I/O.
//!
//! What is like a real server: versions and watches, conflicts, server-side apply with its owners, status subresources, finalizers,
//! collection of dependents, definitions with their schemas, webhooks, roles. What is not: nothing runs here (no kubelet, no scheduler, no
//! controllers of workloads), built-in kinds get few defaults and little validation, and there are no tables for printing. The suites of
//! this crate run against a real cluster as well (`PEERPODS_TEST_CLUSTER=1` and `KUBECONFIG`), which is what keeps it honest.

mod admission;
mod cel;
mod collect;
mod desk;
mod discovery;
mod fields;
mod http;
mod kinds;
mod object;
mod patch;
mod rbac;
mod read;
mod refusal;
mod schema;
mod selector;
mod server;
mod store;
mod target;
mod watch;
mod write;

pub use desk::Asked;
pub use refusal::Refusal;
pub use server::{Server, ServerError};
