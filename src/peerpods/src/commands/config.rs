//! `peerpods config show`.

use crate::config::Settings;
use crate::exit;
use crate::logging::bare;
use crate::output::{self, Output};

use super::Failure;

/// Prints every key's effective value and its source.
pub(super) fn show(output: Output, settings: &Settings) -> Result<u8, Failure> {
    output::answer(output, &settings.shown, |shown| {
        let rows: Vec<Vec<String>> = shown
            .iter()
            .map(|one| vec![one.key.to_owned(), bare(&one.value), one.source.to_string()])
            .collect();
        output::table(&["KEY", "VALUE", "SOURCE"], &rows)
    })?;
    Ok(exit::OK)
}
