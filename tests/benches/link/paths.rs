//! The five ways to the agent, and what their processes take of the machine.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use peerpods_agentlink::ca::ClusterCa;
use peerpods_agentlink::process::LinkProcesses;
use peerpods_agentlink::{GuestTrust, Link, LinkIdentity, LinkSpec, LinkTarget};
use peerpods_tests::bench::process::cpu_time;
use tempfile::TempDir;
use ttrpc::r#async::Client;

use super::roles::{DIR, PEER, VARIABLE, VM};

/// A way to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    Direct,
    Bare,
    Tls,
    Session,
    Plain,
}

impl Path {
    pub(crate) const ALL: [Self; 5] = [Self::Direct, Self::Bare, Self::Tls, Self::Session, Self::Plain];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Bare => "bare proxies, no TLS",
            Self::Tls => "plain TLS proxies",
            Self::Session => "link, session",
            Self::Plain => "link, stock",
        }
    }
}

/// Anonymous memory of a path's ends in KiB.
pub(crate) struct Usage {
    pub(crate) path: Path,
    pub(crate) near: u64,
    pub(crate) far: u64,
}

/// A process that ends with the benchmark.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One path's own processes: those between the client and the agent.
struct Way {
    socket: PathBuf,
    pids: Vec<u32>,
}

/// All paths, running.
pub(crate) struct Paths {
    ways: Vec<Way>,
    links: LinkProcesses,
    specs: Vec<LinkSpec>,
    _children: Vec<Process>,
    _dir: TempDir,
}

/// Of the same build, or the one that is named.
fn link_program() -> PathBuf {
    let built = || {
        let own = std::env::current_exe().unwrap();
        let dir = own.ancestors().find(|dir| dir.join("peerpods-link").exists());
        dir.expect("peerpods-link is not built beside this benchmark").join("peerpods-link")
    };
    std::env::var_os("PEERPODS_LINK_PROGRAM").map_or_else(built, PathBuf::from)
}

/// What the near ends show.
pub(crate) fn identity(ca: &ClusterCa) -> LinkIdentity {
    let pair = ca.issue_client("link").unwrap();
    LinkIdentity {
        certificate: pair.certificate.clone(),
        key: pair.expose_key().to_owned(),
        authority: ca.certificate_pem().to_owned(),
    }
}

impl Paths {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("pplb").tempdir_in("/tmp").unwrap();
        let ca = ClusterCa::load_or_create(&dir.path().join("ca")).unwrap();
        let mut children = Vec::new();
        let mut role = |role: &str, peer: &str| {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .env(VARIABLE, role)
                .env(DIR, dir.path())
                .env(PEER, peer)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            let pid = child.id();
            children.push(Process(child));
            (pid, line.trim().strip_prefix("ready ").unwrap_or_else(|| panic!("{role}: {line}")).to_owned())
        };
        role("agent", "");
        let (tls_far, at) = role("tls-far", "");
        let (tls_near, _) = role("tls-near", &at);
        let (bare_far, at) = role("bare-far", "");
        let (bare_near, _) = role("bare-near", &at);
        let fars = [role("far", ""), role("stock-far", "")];
        let links = LinkProcesses::new(link_program());
        let mut ways = vec![
            Way { socket: dir.path().join("agent.sock"), pids: Vec::new() },
            Way { socket: dir.path().join("bare.sock"), pids: vec![bare_near, bare_far] },
            Way { socket: dir.path().join("tls.sock"), pids: vec![tls_near, tls_far] },
        ];
        let mut specs = Vec::new();
        for (id, (far, at)) in ["session", "plain"].into_iter().zip(fars) {
            let agent_socket = dir.path().join(id).join("agent.ttrpc");
            let spec = LinkSpec { sandbox: id.parse().unwrap(), agent_socket: agent_socket.clone() };
            links.open(&spec).await.unwrap();
            let target = LinkTarget {
                address: at.parse().unwrap(),
                server_name: VM.to_owned(),
                identity: identity(&ca),
                guest: GuestTrust::Authority,
                deadline: Duration::from_secs(20),
            };
            links.connect(&spec, &target).await.unwrap();
            let near = links.status(&spec).await.unwrap().unwrap().pid;
            ways.push(Way { socket: agent_socket, pids: vec![near, far] });
            specs.push(spec);
        }
        Self { ways, links, specs, _children: children, _dir: dir }
    }

    /// A connection of its own to the agent.
    pub(crate) async fn client(&self, path: Path) -> Client {
        Client::connect(&format!("unix://{}", self.way(path).socket.display())).await.unwrap()
    }

    /// CPU time that the processes between client and agent have used.
    pub(crate) fn cpu(&self, path: Path) -> Duration {
        self.way(path).pids.iter().map(|pid| cpu_time(*pid)).sum()
    }

    /// What the ends of each path take that has some.
    pub(crate) fn memory(&self) -> Vec<Usage> {
        let used = |path| match self.way(path).pids.as_slice() {
            [near, far] => Some(Usage { path, near: anonymous(*near), far: anonymous(*far) }),
            _ => None,
        };
        Path::ALL.into_iter().filter_map(used).collect()
    }

    /// Ends the links.
    pub(crate) async fn close(&self) {
        for spec in &self.specs {
            self.links.close(spec).await.unwrap();
        }
    }

    fn way(&self, path: Path) -> &Way {
        &self.ways[path as usize]
    }
}

fn anonymous(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}
