//! What is wrong with an object: every fault with the field it is in.

use std::fmt;

/// A field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The field's path, as in `spec.containers[0].volumeDevices`.
    pub field: String,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl Fault {
    /// A fault in `field`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

/// As many faults as one text names: an object may have thousands, and a status or an Event holds a few hundred characters.
const NAMED: usize = 12;

/// All faults on one line.
#[must_use]
pub fn list(faults: &[Fault]) -> String {
    let mut text: Vec<String> = faults.iter().take(NAMED).map(ToString::to_string).collect();
    if let Some(more) = faults.len().checked_sub(NAMED).filter(|more| *more > 0) {
        text.push(format!("and {more} more"));
    }
    text.join("; ")
}

/// As much of a value as a message shows, in characters.
const SHOWN: usize = 60;

/// A value, fit for a message.
#[must_use]
pub fn shown(value: &str) -> String {
    let mut chars = value.chars();
    let mut text: String = chars.by_ref().take(SHOWN).collect();
    if chars.next().is_some() {
        text.push('…');
    }
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_listed_with_their_fields_and_not_without_end() {
        let two = [Fault::new("spec.a", "is wrong"), Fault::new("spec.b[0]", "as well")];
        assert_eq!(list(&two), "spec.a: is wrong; spec.b[0]: as well");
        let many: Vec<Fault> = (0..1000).map(|n| Fault::new(format!("spec[{n}]"), "x")).collect();
        let text = list(&many);
        assert!(text.ends_with("spec[11]: x; and 988 more"), "{text}");
    }

    #[test]
    fn a_value_is_shown_quoted_and_cut() {
        assert_eq!(shown("a\nb"), r#""a\nb""#);
        assert_eq!(shown(&"é".repeat(100)).chars().count(), 63);
    }
}
