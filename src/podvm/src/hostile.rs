//! Texts for tests that show parsers never panic.

use proptest::prelude::*;

/// Any text at all, controls included (which `any::<String>()` never gives).
pub(crate) fn any_text() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..80).prop_map(String::from_iter)
}
