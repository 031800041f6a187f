//! What a run came to: a table for people, or JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::play::Wrong;

/// How a case ended.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// As it must.
    Passed {
        /// Something measured, perhaps.
        #[serde(skip_serializing_if = "String::is_empty")]
        note: String,
    },
    /// Otherwise.
    Failed(Wrong),
    /// Not tried.
    Skipped {
        /// Why.
        reason: String,
    },
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The case.
    pub name: String,
    /// The shim: `go`, `rs`, or `-` when it does not matter.
    pub model: String,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How long it took, in seconds, with all the waiting.
    pub seconds: f64,
}

/// A run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was tried.
    pub implementation: String,
    /// Case by case.
    pub cases: Vec<Row>,
    /// What was left of everything at the end.
    pub left: Vec<String>,
    /// How long all of it took, in seconds.
    pub seconds: f64,
}

impl Report {
    /// How many passed, failed, were skipped.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let count =
            |wanted: fn(&Outcome) -> bool| self.cases.iter().filter(|row| wanted(&row.outcome)).count();
        (
            count(|o| matches!(o, Outcome::Passed { .. })),
            count(|o| matches!(o, Outcome::Failed(_))),
            count(|o| matches!(o, Outcome::Skipped { .. })),
        )
    }

    /// Whether nothing failed and nothing is left.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.counts().1 == 0 && self.left.is_empty()
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let width = self.cases.iter().map(|row| row.name.len()).max().unwrap_or(4).max(4);
        let mut text = format!("{}\n\n{:<width$}  shim  result      time\n", self.implementation, "case");
        for row in &self.cases {
            let word = match &row.outcome {
                Outcome::Passed { .. } => "passed",
                Outcome::Failed(_) => "FAILED",
                Outcome::Skipped { .. } => "skipped",
            };
            // Writing to a string does not fail.
            let _ = write!(text, "{:<width$}  {:<4}  {word:<7} {:>6.1} s", row.name, row.model, row.seconds);
            match &row.outcome {
                Outcome::Passed { note } if note.is_empty() => text.push('\n'),
                Outcome::Passed { note } => text.push_str(&format!("  {note}\n")),
                Outcome::Skipped { reason } => text.push_str(&format!("  {reason}\n")),
                Outcome::Failed(wrong) => text.push_str(&format!(
                    "\n    at        {}\n    expected  {}\n    came      {}\n    rule      {}\n",
                    wrong.step, wrong.expected, wrong.came, wrong.rule
                )),
            }
        }
        for left in &self.left {
            let _ = writeln!(text, "LEFT BEHIND: {left}");
        }
        let (passed, failed, skipped) = self.counts();
        let time = Duration::from_secs_f64(self.seconds);
        let _ = writeln!(text, "\n{passed} passed, {failed} failed, {skipped} skipped, in {time:.0?}");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let row = |name: &str, outcome| Row {
            name: name.to_owned(),
            model: "go".to_owned(),
            outcome,
            seconds: 1.25,
        };
        let wrong = Wrong {
            step: "StopVM".to_owned(),
            expected: "success".to_owned(),
            came: "status 5".to_owned(),
            rule: "facts/kata.md R4".to_owned(),
        };
        Report {
            implementation: "somebody's".to_owned(),
            cases: vec![
                row("one", Outcome::Passed { note: String::new() }),
                row("two", Outcome::Failed(wrong)),
                row("three", Outcome::Skipped { reason: "needs control".to_owned() }),
            ],
            left: Vec::new(),
            seconds: 3.0,
        }
    }

    #[test]
    fn a_failure_says_what_was_expected_what_came_and_which_rule() {
        let table = report().table();
        for wanted in ["somebody's", "FAILED", "expected  success", "came      status 5", "facts/kata.md R4"]
        {
            assert!(table.contains(wanted), "{table}");
        }
        assert!(table.contains("1 passed, 1 failed, 1 skipped"), "{table}");
    }

    #[test]
    fn json_has_every_case_and_its_outcome() {
        let value: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        let outcome = |n: usize| value["cases"][n]["outcome"].as_str().unwrap().to_owned();
        assert_eq!([outcome(0), outcome(1), outcome(2)], ["passed", "failed", "skipped"]);
        assert_eq!(value["cases"][1]["rule"], "facts/kata.md R4");
    }

    #[test]
    fn what_is_left_behind_is_a_failure_too() {
        let mut good = report();
        good.cases.remove(1);
        assert!(good.is_good());
        good.left.push("a VM".to_owned());
        assert!(!good.is_good());
        assert!(good.table().contains("LEFT BEHIND: a VM"));
    }
}
