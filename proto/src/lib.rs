//! The wire protocols of peerpods, as Rust types.
//!
//! This crate owns the `.proto` files under `protos/` and the code generated from them, which is checked in under `src/gen`
//! so that no build needs a protocol compiler; `tests/drift.rs` regenerates it and fails on a difference. It holds no behaviour:
//! conversion to domain types happens in the crates that speak a protocol.
//!
//! The hypervisor API exists twice, because the same socket speaks ttrpc (rust-protobuf messages) and gRPC (prost messages).

mod generated;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod ttrpc;
