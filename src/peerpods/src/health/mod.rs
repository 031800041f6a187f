//! Whether this process lives and may be sent work, over HTTP, for kubelet and people. Every role brings its [`Check`]s; [`server`]
//! answers them.
//!
//! ```text
//!  GET /livez           what only a new process could mend        503: kubelet restarts the container
//!  GET /readyz          also: is work taken now                   503: starting, or asked to end
//!  GET /healthz         the same as /livez, its older name
//!  GET /metrics         what is counted, in the text form of OpenMetrics
//!      ?verbose         each check on a line, as Kubernetes' own components answer
//! ```
//!
//! No check depends on pods, on their VMs or on the cloud: upstream's startup probe waits for every peer pod of the node, so that one
//! broken pod has the node daemon killed over and over. What is only worth knowing is shown and does not count.

pub mod server;

use std::fmt::Write as _;
use std::net::SocketAddr;

use peerpods_hypervisor::journal::DiskJournal;
use peerpods_hypervisor::{Lifecycle, Status};

/// The port beside the agent link's 15150, on the loopback: kubelet reaches it there for a pod in the host's network, nobody else does.
pub const DEFAULT_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 15151);

/// What a check that fails means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// Only a new process helps; such a process is not ready either.
    Live,
    /// No work is taken now.
    Ready,
    /// Nothing: it is shown.
    Never,
}

/// One thing that is looked at for every request. Looking must not wait and must not call anybody.
pub struct Check {
    name: &'static str,
    counts: Counts,
    look: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl Check {
    /// A check; `look` says in a few words what is wrong.
    pub fn new(
        name: &'static str,
        counts: Counts,
        look: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self { name, counts, look: Box::new(look) }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/livez` and `/healthz`.
    Livez,
    /// `/readyz`.
    Readyz,
}

impl Endpoint {
    fn name(self) -> &'static str {
        match self {
            Self::Livez => "livez",
            Self::Readyz => "readyz",
        }
    }

    fn concerned_by(self, counts: Counts) -> bool {
        matches!((self, counts), (_, Counts::Live) | (Self::Readyz, Counts::Ready))
    }
}

/// How much is told of what is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// `ok`.
    Short,
    /// Every check.
    Verbose,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether the status is 200, and not 503.
    pub passed: bool,
    /// Plain text.
    pub body: String,
}

/// Looks at everything and answers. A failure is always told with all checks.
#[must_use]
pub fn answer(checks: &[Check], endpoint: Endpoint, detail: Detail) -> Answer {
    let mut passed = true;
    let mut lines = String::new();
    for check in checks {
        let counts = endpoint.concerned_by(check.counts);
        // Writing to a String cannot fail.
        let _ = match (check.look)() {
            Ok(()) => writeln!(lines, "[+]{} ok", check.name),
            Err(why) if counts => {
                passed = false;
                writeln!(lines, "[-]{} failed: {why}", check.name)
            }
            Err(why) => writeln!(lines, "[!]{} not ok, does not count: {why}", check.name),
        };
    }
    let body = match (passed, detail) {
        (true, Detail::Short) => "ok".to_owned(),
        (true, Detail::Verbose) => format!("{lines}{} check passed\n", endpoint.name()),
        (false, _) => format!("{lines}{} check failed\n", endpoint.name()),
    };
    Answer { passed, body }
}

/// What the node service brings: it serves and is not draining; its journal can be written. That the runtime runs is said by the answer
/// itself. A driver that hangs harms one sandbox and must not end the process that looks after the others.
#[must_use]
pub fn of_hypervisor(life: Lifecycle, journal: DiskJournal) -> Vec<Check> {
    let trouble = life.clone();
    vec![
        Check::new("hypervisor-socket", Counts::Ready, move || match life.status() {
            _ if life.is_draining() => Err(match life.status() {
                Status::Draining { starts } => format!("draining, {starts} starts under way"),
                _ => "draining".to_owned(),
            }),
            Status::Serving => Ok(()),
            Status::Starting => Err("starting".to_owned()),
            Status::Draining { .. } | Status::Ended => Err("ended".to_owned()),
        }),
        Check::new("journal", Counts::Live, move || {
            if journal.is_writable() { Ok(()) } else { Err("the thread that writes it has ended".to_owned()) }
        }),
        Check::new("provider", Counts::Never, move || trouble.trouble().map_or(Ok(()), Err)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks(live: Result<(), &str>, ready: Result<(), &str>, shown: Result<(), &str>) -> Vec<Check> {
        let check = |name, counts, found: Result<(), &str>| {
            let found = found.map_err(str::to_owned);
            Check::new(name, counts, move || found.clone())
        };
        vec![
            check("live", Counts::Live, live),
            check("ready", Counts::Ready, ready),
            check("shown", Counts::Never, shown),
        ]
    }

    #[test]
    fn each_endpoint_is_concerned_by_its_own_checks() {
        for (live, ready, shown, livez, readyz) in [
            (Ok(()), Ok(()), Ok(()), true, true),
            (Ok(()), Err("starting"), Ok(()), true, false),
            (Err("dead"), Ok(()), Ok(()), false, false),
            (Ok(()), Ok(()), Err("no cloud"), true, true),
        ] {
            let checks = checks(live, ready, shown);
            assert_eq!(answer(&checks, Endpoint::Livez, Detail::Short).passed, livez, "{live:?} {ready:?}");
            assert_eq!(answer(&checks, Endpoint::Readyz, Detail::Short).passed, readyz, "{live:?} {ready:?}");
        }
    }

    #[test]
    fn the_text_is_that_of_kubernetes_components() {
        let well = checks(Ok(()), Ok(()), Ok(()));
        assert_eq!(answer(&well, Endpoint::Livez, Detail::Short).body, "ok");
        let verbose = answer(&well, Endpoint::Readyz, Detail::Verbose).body;
        assert_eq!(verbose, "[+]live ok\n[+]ready ok\n[+]shown ok\nreadyz check passed\n");
        let draining = checks(Ok(()), Err("draining"), Err("no cloud"));
        let told = answer(&draining, Endpoint::Readyz, Detail::Short).body;
        let expected = "[+]live ok\n[-]ready failed: draining\n[!]shown not ok, does not count: no cloud\nreadyz check failed\n";
        assert_eq!(told, expected, "a failure is told without being asked");
    }

    #[tokio::test]
    async fn the_node_service_is_ready_only_while_it_serves_and_lives_through_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let life = Lifecycle::new();
        let checks = of_hypervisor(life.clone(), DiskJournal::open(dir.path().join("j")).unwrap());
        assert!(!answer(&checks, Endpoint::Readyz, Detail::Short).passed, "nothing is served yet");
        life.drain();
        let draining = answer(&checks, Endpoint::Readyz, Detail::Short);
        assert!(!draining.passed && draining.body.contains("draining"), "{draining:?}");
        assert!(answer(&checks, Endpoint::Livez, Detail::Short).passed);
    }
}
