//! How an error is told: once, with everything that caused it. What is done about one is not decided here.

use std::error::Error;

/// An error with all its causes, one after the other. A cause that its effect already quotes is not said twice. On one line, where they are:
/// a list of faults keeps its lines.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| Error::source(*cause));
    let mut text = error.to_string();
    let mut effect = text.clone();
    for said in causes.map(ToString::to_string) {
        if !effect.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        effect = said;
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Trouble {
        #[error("cannot start")]
        Start(#[source] io::Error),
        #[error("cannot start: {0}")]
        Quoted(#[source] io::Error),
        #[error("cannot start")]
        Through(#[source] Box<Trouble>),
    }

    #[test]
    fn every_cause_is_said_once() {
        let cause = || io::Error::other("no memory");
        let through = Trouble::Through(Box::new(Trouble::Quoted(cause())));
        assert_eq!(chain(&through), "cannot start: cannot start: no memory");
        for error in [Trouble::Start(cause()), Trouble::Quoted(cause())] {
            assert_eq!(chain(&error), "cannot start: no memory");
        }
        assert_eq!(chain(&io::Error::other("alone")), "alone");
    }
}
