//! What answers and messages say, for `tests/fuzz`.

use super::message::{self, Element, Rule};
use super::socket::Answers;

/// What a message changes in a table that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edit {
    /// It is removed.
    NoTable,
    /// These come into a set.
    Add(String, Vec<Element>),
    /// These leave it.
    Remove(String, Vec<Element>),
    /// Something else.
    Other,
}

/// The rules that datagrams tell of, up to the first refusal.
pub(crate) fn rules(datagrams: &[u8], table: &str) -> Vec<Rule> {
    answers(datagrams).iter().filter_map(|answer| message::rule(answer, table)).collect()
}

/// The elements that datagrams tell of, up to the first refusal.
pub(crate) fn elements(datagrams: &[u8]) -> Vec<Element> {
    answers(datagrams).iter().flat_map(|answer| message::elements(answer)).collect()
}

fn answers(datagrams: &[u8]) -> Vec<Vec<u8>> {
    let mut answers = Answers::default();
    // A refusal ends it; what was heard before is read all the same.
    let _refused = answers.hear(datagrams, "fuzz").is_err();
    answers.heard
}
