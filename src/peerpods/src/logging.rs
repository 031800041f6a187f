//! Log lines to stderr, set up once by `main`.

use tracing_subscriber::EnvFilter;

use crate::config::settings::{LogFormat, Settings};

/// Which lines a program shows when nobody asked for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// A service: what it does.
    Service,
    /// A command: only what is wrong, because its own output says the rest.
    Command,
}

impl Verbosity {
    fn filter(self) -> &'static str {
        match self {
            Verbosity::Service => "info",
            // The RPC library calls the end of a connection an error; what matters of it is in our own errors.
            Verbosity::Command => "warn,ttrpc=off",
        }
    }
}

/// Starts logging. A second call changes nothing, so that tests may call it.
pub fn start(settings: &Settings, verbosity: Verbosity) {
    let text = settings.log_level.as_deref().unwrap_or(verbosity.filter());
    // The level was checked when the configuration was read.
    let filter = EnvFilter::try_new(text).unwrap_or_else(|_| EnvFilter::new(verbosity.filter()));
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    let started = match settings.log_format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging had been started before");
    }
}

/// Writes the effective configuration to the log, one line, without what must not be shown.
pub fn effective(settings: &Settings) {
    let words: Vec<String> = settings.shown.iter().map(|s| format!("{}={}", s.key, bare(&s.value))).collect();
    tracing::info!(configuration = words.join(" "), version = env!("CARGO_PKG_VERSION"), "starting");
}

/// A value without the quotes of its text.
#[must_use]
pub fn bare(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => "(unset)".to_owned(),
        serde_json::Value::Array(items) => items.iter().map(bare).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
