//! The node service as a library: the real drivers and the real journal, with a fake cloud and with a tunnel and links that only
//! remember what was asked of them. Needs nothing but a directory.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod creation;
mod frozen;
mod identifiers;
mod journal;
mod late;
mod limits;
mod place;
mod restart;
