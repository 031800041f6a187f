//! What a test sees and arranges at the server's door: who asked for what, and which requests are to fail.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::rbac::Identity;

/// A request as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`, as RBAC names them.
    pub verb: &'static str,
    /// The path without its query.
    pub path: String,
    /// The query.
    pub query: String,
    /// Who, by the `User-Agent` header.
    pub agent: String,
    /// What it was answered; 0 while it is not.
    pub code: u16,
}

impl Asked {
    /// Whether it asks for a change that is meant to last.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !["get", "list", "watch"].contains(&self.verb) && !self.query.contains("dryRun=")
    }
}

type Matcher = Box<dyn FnMut(&Asked) -> bool + Send>;

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Refused with this code, before anything is done.
    Refused(u16),
    /// Done, but the connection breaks before the answer.
    Unanswered,
}

/// The log, and what is arranged.
#[derive(Default)]
pub(crate) struct Desk {
    log: Vec<Asked>,
    /// How many of the log's first entries were dropped from it.
    forgotten: usize,
    arranged: Vec<(Matcher, Failure)>,
    /// The resource whose watches tell nothing for now.
    pub(crate) held: Option<String>,
    pub(crate) tokens: BTreeMap<String, Identity>,
    pub(crate) services: BTreeMap<(String, String), SocketAddr>,
}

impl Desk {
    /// Enters a request. The answer is its ticket, and how it is to fail.
    pub(crate) fn enter(&mut self, asked: Asked) -> (usize, Option<Failure>) {
        let at = self.arranged.iter_mut().position(|(matches, _)| matches(&asked));
        let failure = at.map(|at| self.arranged.remove(at).1);
        self.log.push(asked);
        (self.forgotten + self.log.len() - 1, failure)
    }

    pub(crate) fn answered(&mut self, ticket: usize, code: u16) {
        let entry = ticket.checked_sub(self.forgotten).and_then(|at| self.log.get_mut(at));
        if let Some(entry) = entry {
            entry.code = code;
        }
    }

    pub(crate) fn log(&self) -> &[Asked] {
        &self.log
    }

    pub(crate) fn forget(&mut self) {
        self.forgotten += self.log.len();
        self.log.clear();
    }

    pub(crate) fn arrange(&mut self, matches: Matcher, failure: Failure) {
        self.arranged.push((matches, failure));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str) -> Asked {
        Asked { verb: "get", path: path.into(), query: String::new(), agent: String::new(), code: 0 }
    }

    #[test]
    fn an_arranged_failure_happens_once_and_to_its_request_only() {
        let mut desk = Desk::default();
        desk.arrange(Box::new(|asked| asked.path == "/a"), Failure::Refused(500));
        assert_eq!(desk.enter(asked("/b")).1, None);
        assert_eq!(desk.enter(asked("/a")).1, Some(Failure::Refused(500)));
        assert_eq!(desk.enter(asked("/a")).1, None);
    }

    #[test]
    fn a_late_answer_to_a_forgotten_request_is_nobodys() {
        let mut desk = Desk::default();
        let (old, _) = desk.enter(asked("/old"));
        desk.forget();
        let (new, _) = desk.enter(asked("/new"));
        desk.answered(old, 500);
        desk.answered(new, 200);
        assert_eq!(desk.log().iter().map(|one| one.code).collect::<Vec<_>>(), [200]);
    }
}
