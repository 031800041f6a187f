//! The program from outside: its configuration, its command line, and its client against a node service and an agent of the tests'
//! own, over the real protocols.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, in its fakes too")]

#[cfg(feature = "aws")]
mod aws_config;
mod cli;
mod config;
mod fake_agent;
mod fake_node;
mod install_node;
mod operator;
mod sandbox;
