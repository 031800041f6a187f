//! The calls of a pod's life in their order, and which of them can go wrong how. The order is `facts/kata.md` §2.1's.

use super::Kind;
use crate::conformance::Model;

/// Who is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// The hypervisor socket.
    Hypervisor,
    /// The agent socket.
    Agent,
}

/// Who makes the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Both,
    Go,
    Rs,
}

/// How long a call may take in the shim's eyes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deadline {
    Some,
    /// The shim waits for as long as it takes.
    None,
    /// The same, and it takes as long as the pod lives.
    Endless,
}

/// One step of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Its name, as in the names of cases.
    pub name: &'static str,
    /// Who is called.
    pub line: Line,
    by: By,
    deadline: Deadline,
}

const fn step(name: &'static str, line: Line, by: By, deadline: Deadline) -> Step {
    Step { name, line, by, deadline }
}

const fn agent(name: &'static str) -> Step {
    step(name, Line::Agent, By::Both, Deadline::Some)
}

const fn poll(name: &'static str) -> Step {
    step(name, Line::Agent, By::Both, Deadline::None)
}

const fn endless(name: &'static str) -> Step {
    step(name, Line::Agent, By::Both, Deadline::Endless)
}

const fn only(by: By, name: &'static str) -> Step {
    step(name, Line::Agent, by, Deadline::Some)
}

/// All steps of both shims.
const ALL: [Step; 49] = [
    step("CreateVM", Line::Hypervisor, By::Both, Deadline::None),
    step("StartVM", Line::Hypervisor, By::Both, Deadline::Some),
    only(By::Go, "Check"),
    only(By::Go, "SetPolicy"),
    agent("CreateSandbox"),
    agent("redial.Check"),
    agent("GetGuestDetails"),
    only(By::Rs, "monitor.Check"),
    only(By::Rs, "monitor.Version"),
    agent("pause.CopyFile"),
    agent("pause.CreateContainer"),
    endless("GetOOMEvent"),
    endless("pause.WaitProcess"),
    agent("pause.StartContainer"),
    agent("app.CopyFile"),
    agent("app.CreateContainer"),
    agent("app.StartContainer"),
    endless("app.WaitProcess"),
    poll("app.ReadStderr"),
    poll("app.ReadStdout"),
    agent("exec.ExecProcess"),
    poll("exec.WriteStdin"),
    poll("exec.ReadStdout"),
    step("exec.CloseStdin", Line::Agent, By::Go, Deadline::Some),
    step("exec.EmptyWrite", Line::Agent, By::Rs, Deadline::None),
    poll("exec.ReadEnd"),
    poll("exec.WaitProcess"),
    agent("tty.ExecProcess"),
    agent("tty.TtyWinResize"),
    poll("tty.WriteStdin"),
    poll("tty.ReadStdout"),
    agent("tty.SignalProcess"),
    poll("tty.WaitProcess"),
    agent("StatsContainer"),
    agent("GetMetrics"),
    agent("UpdateContainer"),
    agent("update.CopyFile"),
    agent("app.SignalProcess"),
    poll("app.ReadEnd"),
    agent("GetDiagnosticData"),
    only(By::Go, "app.again.SignalProcess"),
    agent("app.RemoveContainer"),
    only(By::Go, "app.RemoveStaleMounts"),
    agent("pause.SignalProcess"),
    only(By::Go, "pause.again.SignalProcess"),
    agent("pause.RemoveContainer"),
    only(By::Go, "pause.RemoveStaleMounts"),
    only(By::Go, "DestroySandbox"),
    step("StopVM", Line::Hypervisor, By::Both, Deadline::Some),
];

/// The steps of a life, in order; without containers when there is nothing to make them of.
#[must_use]
pub fn of(model: Model) -> Vec<Step> {
    let other = match model {
        Model::Go => By::Rs,
        Model::Rs => By::Go,
    };
    ALL.into_iter().filter(|step| step.by != other).collect()
}

impl Step {
    /// Whether this fault can come here.
    #[must_use]
    pub fn allows(&self, model: Model, kind: Kind) -> bool {
        match kind {
            Kind::Killed | Kind::Closed | Kind::Held => true,
            // A reset is a close with an answer unread, and here none comes.
            Kind::Reset => self.deadline != Deadline::Endless,
            // Neither a call without a deadline, nor Go's StopVM, passes one.
            Kind::TimedOut => {
                self.deadline == Deadline::Some && !(self.name == "StopVM" && model == Model::Go)
            }
        }
    }

    /// Whether the shim has been at the agent's socket when it comes to this step.
    #[must_use]
    pub fn reaches_the_agent(&self) -> bool {
        !matches!(self.name, "CreateVM" | "StartVM")
    }

    /// Whether it is about containers.
    #[must_use]
    pub fn needs_containers(&self) -> bool {
        let without = ["CreateVM", "StartVM", "Check", "SetPolicy", "CreateSandbox", "redial.Check"];
        let end = ["GetGuestDetails", "monitor.Check", "monitor.Version", "DestroySandbox", "StopVM"];
        !without.contains(&self.name) && !end.contains(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_its_own_name() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|step| step.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn each_shim_has_the_calls_that_are_its_own() {
        let names = |model| of(model).into_iter().map(|step| step.name).collect::<Vec<_>>();
        let (go, rs) = (names(Model::Go), names(Model::Rs));
        assert!(go.contains(&"DestroySandbox") && !rs.contains(&"DestroySandbox"));
        assert!(rs.contains(&"exec.EmptyWrite") && !go.contains(&"exec.EmptyWrite"));
        assert_eq!((go[0], rs[0]), ("CreateVM", "CreateVM"));
    }
}
