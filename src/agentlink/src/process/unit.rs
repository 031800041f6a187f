//! A link as a transient unit of systemd: its name, its properties, and what a unit that is there already means. Pure.

use std::path::Path;

use peerpods_podvm::SandboxId;
use zbus::Variant;

use crate::near::detach::SERVE_FLAG;

/// What every link's unit is called, before the sandbox's id.
const PREFIX: &str = "peerpods-link-";
/// All units of links, for asking which there are.
pub(super) const PATTERN: &str = "peerpods-link-*.service";
/// A control group beside those of containers and services, so that nobody's end takes the links with it.
const SLICE: &str = "peerpods.slice";
/// Below everything that can be started again (containers 0 to 1000) and above the kubelet's and containerd's -999: a link holds some two
/// MiB, and killing it frees nothing and ends a pod.
const OOM_SCORE_ADJUST: i32 = -900;
/// Far above what a link's buffers can come to. It slows a link that leaks; a hard limit would end its pod.
const MEMORY_HIGH: u64 = 64 << 20;
/// The link has one thread; the rest is for its runtime's blocking calls.
const TASKS_MAX: u64 = 64;
/// How long the link may take to end when systemd asks it to, in microseconds.
const STOP_MICROSECONDS: u64 = 2_000_000;

/// One sandbox's unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) name: String,
    /// Says whose it is; another daemon's unit of the same name has another agent socket.
    pub(super) description: String,
    argv: Vec<String>,
}

/// A path that D-Bus cannot carry.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not UTF-8, which a unit's command line must be")]
pub(super) struct NotUtf8(std::path::PathBuf);

impl Unit {
    /// The unit that runs `program`, a path on the host, as the server of this sandbox's link.
    pub(super) fn of(sandbox: &SandboxId, agent_socket: &Path, program: &Path) -> Result<Self, NotUtf8> {
        let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| NotUtf8(path.to_owned()));
        let (socket, program) = (text(agent_socket)?, text(program)?);
        let argv = [&program, "--sandbox", sandbox.as_str(), SERVE_FLAG, "--agent-socket", &socket];
        Ok(Self {
            name: Self::name_of(sandbox),
            description: Self::description_of(agent_socket),
            argv: argv.map(str::to_owned).into(),
        })
    }

    pub(super) fn name_of(sandbox: &SandboxId) -> String {
        format!("{PREFIX}{sandbox}.service")
    }

    pub(super) fn description_of(agent_socket: &Path) -> String {
        format!("Agent link of the peer pod at {}", agent_socket.display())
    }

    /// The properties for `StartTransientUnit`.
    pub(super) fn properties(&self) -> Vec<(&'static str, Variant<'_>)> {
        let program = self.argv.first().map_or("", String::as_str);
        // systemd replaces variables in arguments, the program's path excepted.
        let argv: Vec<String> = self.argv.iter().map(|argument| argument.replace('$', "$$")).collect();
        vec![
            ("Description", Variant::from(self.description.as_str())),
            ("ExecStart", Variant::from(vec![(program, argv, false)])),
            // Started means executed: a missing file is a failed unit and not a guess.
            ("Type", "exec".into()),
            ("Slice", SLICE.into()),
            // Nothing stays behind when it ends, however it ends.
            ("CollectMode", "inactive-or-failed".into()),
            // A new process would have neither keys nor the shim's connections. The daemon starts links.
            ("Restart", "no".into()),
            ("KillMode", "mixed".into()),
            ("TimeoutStopUSec", STOP_MICROSECONDS.into()),
            ("OOMScoreAdjust", OOM_SCORE_ADJUST.into()),
            ("MemoryHigh", MEMORY_HIGH.into()),
            ("TasksMax", TASKS_MAX.into()),
            ("StandardInput", "null".into()),
            // Why a server does not listen, it says on its standard output.
            ("StandardOutput", "journal".into()),
            ("StandardError", "journal".into()),
        ]
    }
}

/// What systemd says of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// `active`, `activating`, `deactivating`, `failed`, `inactive`, …
    pub(super) active: String,
    pub(super) description: String,
}

/// What to do about a unit that is there when ours is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// It went away meanwhile, or is about to be collected: try again.
    Retry,
    /// It runs: its link may answer, being started by somebody at the same time. If it does not, stop it.
    Join,
    /// It failed and was kept: forget it and try again.
    Reset,
    /// It is another daemon's.
    Refuse,
}

/// What to do about a unit of our name, or about none, after systemd said that there is one.
pub(super) fn on_exists(found: Option<&State>, description: &str) -> Step {
    match found {
        None => Step::Retry,
        Some(state) if state.active == "failed" => Step::Reset,
        Some(state) if matches!(state.active.as_str(), "inactive" | "deactivating") => Step::Retry,
        Some(state) if state.description == description => Step::Join,
        Some(_) => Step::Refuse,
    }
}

/// Whether a unit that was started will not run any more. A collected one is there no longer; `inactive` is also what one is that waits
/// for its start.
pub(super) fn is_over(found: Option<&State>) -> bool {
    found.is_none_or(|state| state.active == "failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit() -> Unit {
        Unit::of(&"a.b-c_1".parse().unwrap(), Path::new("/run/p$d/a/agent.ttrpc"), Path::new("/var/bin/l"))
            .unwrap()
    }

    #[test]
    fn a_unit_runs_the_server_and_expands_nothing() {
        let unit = unit();
        assert_eq!(unit.name, "peerpods-link-a.b-c_1.service");
        let properties = unit.properties();
        let (_, exec) = properties.iter().find(|(name, _)| *name == "ExecStart").unwrap();
        assert_eq!(exec.value_signature().to_string(), "a(sasb)");
        let shown = format!("{exec:?}");
        assert!(shown.contains("--serve") && shown.contains("/run/p$$d/a/agent.ttrpc"), "{shown}");
    }

    #[test]
    fn a_path_that_d_bus_cannot_carry_is_refused() {
        use std::os::unix::ffi::OsStrExt;
        let strange = Path::new(std::ffi::OsStr::from_bytes(b"/run/\xff/agent.ttrpc"));
        assert!(Unit::of(&"a".parse().unwrap(), strange, Path::new("/l")).is_err());
    }

    #[test]
    fn what_is_there_already_decides_the_next_step() {
        let ours = unit().description;
        let state = |active: &str, description: &str| State {
            active: active.to_owned(),
            description: description.to_owned(),
        };
        for (found, step, over) in [
            (None, Step::Retry, true),
            (Some(state("active", &ours)), Step::Join, false),
            (Some(state("activating", &ours)), Step::Join, false),
            (Some(state("active", "another")), Step::Refuse, false),
            (Some(state("deactivating", "another")), Step::Retry, false),
            (Some(state("inactive", &ours)), Step::Retry, false),
            (Some(state("failed", "another")), Step::Reset, true),
        ] {
            assert_eq!(on_exists(found.as_ref(), &ours), step, "{found:?}");
            assert_eq!(is_over(found.as_ref()), over, "{found:?}");
        }
    }
}
