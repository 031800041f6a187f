//! The real `miniagent`, driven over its socket the way a shim does it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a step that fails fails the test")]

mod containers;
mod harness;
mod processes;
mod sandbox;
mod streams;
