//! A shim's process as the suite sees it: starts it, follows what it says, lets it go on and go.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::play::{Order, Said, Wrong};

/// How long a shim may be silent: longer than any deadline of its own that is not for ever.
pub(super) const SILENCE: Duration = Duration::from_secs(240);

/// How a life went.
#[derive(Debug)]
pub enum Life {
    /// To its end, whatever was ordered to go wrong.
    Over,
    /// It waits at this step.
    Holding(String),
    /// The process died.
    Died,
    /// Something was not as it must be.
    Wrong(Wrong),
}

/// A shim's process. Killed when dropped.
pub struct Actor {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    /// The steps it has come to, each once.
    pub steps: Vec<String>,
    /// How long each StopVM took, in milliseconds.
    pub stops: Vec<f64>,
    /// How many of the monitor's health checks were answered, once its life's end came.
    pub checks: u32,
}

impl Actor {
    /// Starts the process and tells it what to play. `program` is `peerpods-conformance`.
    pub async fn start(program: &Path, order: &Order) -> Self {
        let mut command = Command::new(program);
        command.arg("play").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut line = serde_json::to_vec(order).unwrap();
        line.push(b'\n');
        stdin.write_all(&line).await.unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdin: Some(stdin), lines, steps: Vec::new(), stops: Vec::new(), checks: 0 }
    }

    /// Follows it until it is over, waits, or is dead.
    pub async fn follow(&mut self) -> Life {
        loop {
            let Ok(line) = tokio::time::timeout(SILENCE, self.lines.next_line()).await else {
                return self.silent();
            };
            let Ok(Some(line)) = line else { return Life::Died };
            match serde_json::from_str(&line) {
                Ok(Said::Step(step)) => {
                    if self.steps.last() != Some(&step) {
                        self.steps.push(step);
                    }
                }
                Ok(Said::StopTook(ms)) => self.stops.push(ms),
                Ok(Said::Checked(times)) => self.checks = times,
                Ok(Said::Holding(step)) => return Life::Holding(step),
                Ok(Said::Over) => return Life::Over,
                Ok(Said::Failed(wrong)) => return Life::Wrong(wrong),
                Err(error) => return self.nonsense(&line, &error.to_string()),
            }
        }
    }

    fn silent(&self) -> Life {
        let step = self.steps.last().cloned().unwrap_or_default();
        Life::Wrong(Wrong {
            step,
            expected: "an answer".to_owned(),
            came: format!("nothing for {} s", SILENCE.as_secs()),
            rule: "facts/kata.md 1.5: no call takes so long".to_owned(),
        })
    }

    fn nonsense(&self, line: &str, error: &str) -> Life {
        let step = self.steps.last().cloned().unwrap_or_default();
        let (expected, rule) = ("a line of the suite's own".to_owned(), "the suite itself".to_owned());
        Life::Wrong(Wrong { step, expected, came: format!("{line:?}: {error}"), rule })
    }

    /// Lets it go on where it waits.
    pub async fn go_on(&mut self) {
        if let Some(stdin) = &mut self.stdin {
            // One that died meanwhile is noticed by following it.
            drop(stdin.write_all(b"go on\n").await);
        }
    }

    /// Lets it end, and waits until it has.
    pub async fn let_go(&mut self) {
        self.stdin = None;
        drop(self.child.wait().await);
    }
}
