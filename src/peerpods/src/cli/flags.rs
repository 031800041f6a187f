//! One option per configuration key, made from the key table, so that no key can lack its option; secrets have none. The text is passed on unread: the
//! configuration's door judges it together with everything else.

use clap::{Arg, ArgMatches};

use crate::config::FlagValue;
use crate::config::keys::{self, KEYS, Key, Reveal};

/// The configuration keys given as options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigFlags(pub Vec<FlagValue>);

/// Keys whose option every command has already.
const GLOBAL: [&str; 2] = ["log-level", "log-format"];

fn offered() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| !GLOBAL.contains(&key.name) && key.reveal != Reveal::Never)
}

/// A key's value as an option gives it; `None` when there is no such key.
#[must_use]
pub fn value(key: &str, text: &str) -> Option<FlagValue> {
    keys::find(key).map(|key| FlagValue { key, text: text.to_owned() })
}

fn argument(key: &'static Key) -> Arg {
    Arg::new(key.name)
        .long(key.flag)
        .value_name(key.value)
        .help(format!("{} [{}]", key.about, key.variable))
        .help_heading("Configuration")
        .allow_hyphen_values(true)
}

impl clap::Args for ConfigFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(offered().map(argument))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for ConfigFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |key: &'static Key| {
            matches.get_one::<String>(key.name).map(|text| FlagValue { key, text: text.clone() })
        };
        Ok(Self(offered().filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
