//! The guest as a plain service in a network namespace, with the real miniagent: the way the fake provider runs it.
//!
//! `make test` names the directory of the guest programs in `PEERPODS_TEST_GUEST_PROGRAMS`. Needs root.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bed;

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bed::{Worker, serves};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peerpods_podvm::network::PodNetwork;
use peerpods_test_require::{Need, require};
use tokio::io::AsyncReadExt;

const PROGRAMS: &str = "PEERPODS_TEST_GUEST_PROGRAMS";
const NEEDS: [Need; 4] = [Need::Root, Need::NetworkNamespaces, Need::Program("ip"), Need::Variable(PROGRAMS)];
const PATIENCE: Duration = Duration::from_secs(30);
const LINK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15150);

fn pod_network() -> PodNetwork {
    let text = r#"{"podip":"10.244.0.5/24","pod-hw-addr":"02:00:00:aa:bb:cc","interface":"eth0",
        "worker-node-ip":"10.99.0.1/24","tunnel-type":"vxlan","mtu":1450,"vxlan-port":9000,"vxlan-id":555001,
        "routes":[{"dst":"0.0.0.0/0","gw":"10.244.0.1","dev":"eth0","protocol":"boot"}],"neighbors":null}"#;
    serde_json::from_str(text).unwrap()
}

/// Where a VM would be: a network namespace with a route to a worker that is not there. Removed when dropped.
struct Place {
    name: String,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pgt{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let place = Self { name, dir: tempfile::tempdir().unwrap() };
        ip(&["netns", "add", &place.name]);
        for arguments in [
            "link set lo up",
            "link add under0 type veth peer name under1",
            "address add 10.99.0.2/24 dev under0",
            "link set under0 up",
            "link set under1 up",
        ] {
            let mut all = vec!["-n", &place.name];
            all.extend(arguments.split(' '));
            ip(&all);
        }
        place
    }

    fn podns(&self) -> String {
        format!("{}-podns", self.name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self, user_data: &str) -> Guest {
        self.start_with(user_data, &PathBuf::from(std::env::var_os(PROGRAMS).unwrap()).join("miniagent"))
    }

    fn start_with(&self, user_data: &str, agent: &Path) -> Guest {
        fs::write(self.path("user-data"), user_data).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &self.name, "unshare", "--mount", env!("CARGO_BIN_EXE_peerpods-guest")])
            .arg("--user-data")
            .arg(self.path("user-data"))
            .arg("--podns")
            .arg(format!("/run/netns/{}", self.podns()))
            .arg("--run-dir")
            .arg(self.path("run"))
            .arg("--agent")
            .arg(agent)
            .arg("--agent-socket")
            .arg(self.path("run/agent.sock"))
            .env("NOTIFY_SOCKET", self.path("notify"))
            .stdin(Stdio::null())
            .stderr(File::create(self.path("log")).unwrap())
            .stdout(File::create(self.path("out")).unwrap())
            .spawn()
            .unwrap();
        Guest(child)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("out")).unwrap() + &fs::read_to_string(self.path("log")).unwrap()
    }

    /// Connects as somebody inside the namespace does. The socket stays there; the thread does not live on.
    fn connect(&self) -> io::Result<TcpStream> {
        let netns = File::open(format!("/run/netns/{}", self.name))?;
        let connect = move || {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
            TcpStream::connect(LINK)
        };
        std::thread::spawn(connect).join().unwrap_or_else(|_| panic!("the connecting thread panicked"))
    }

    /// A TLS connection on which the agent has answered.
    async fn link(&self, worker: &Worker) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        let started = Instant::now();
        loop {
            let Ok(tcp) = self.connect() else {
                assert!(started.elapsed() < PATIENCE, "the port did not open:\n{}", self.log());
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            tcp.set_nonblocking(true).unwrap();
            let mut tls = worker.secure(tokio::net::TcpStream::from_std(tcp).unwrap()).await.unwrap();
            serves(&mut tls).await.unwrap();
            return tls;
        }
    }

    /// The agent's process id, as the log has it.
    fn agent(&self) -> Pid {
        let log = self.log();
        let (_, rest) = log.split_once("(pid ").unwrap_or_else(|| panic!("no agent in the log:\n{log}"));
        Pid::from_raw(rest.split(')').next().unwrap().parse().unwrap())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for name in [self.podns(), self.name.clone()] {
            let _ = Command::new("ip").args(["netns", "delete", &name]).output();
        }
    }
}

fn ip(arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = Command::new("ip").args(arguments).output().unwrap();
    assert!(status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// `ip` run in a namespace that may have no name here.
fn ip_inside(netns: &File, arguments: &'static str) -> String {
    let netns = netns.try_clone().unwrap();
    let run = move || {
        setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
        ip(&arguments.split(' ').collect::<Vec<_>>())
    };
    std::thread::spawn(run).join().unwrap()
}

/// The service; killed when dropped.
struct Guest(Child);

impl Guest {
    fn wait(&mut self, place: &Place) -> i32 {
        let started = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(started.elapsed() < PATIENCE, "the guest does not end:\n{}", place.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The pod's namespace, which is mounted where only the guest sees it; held open, so that it can be looked at afterwards.
    fn podns(&self, place: &Place) -> File {
        File::open(format!("/proc/{}/root/run/netns/{}", self.0.id(), place.podns())).unwrap()
    }

    fn tell(&self, signal: Signal) {
        // `ip` and `unshare` replace themselves, so the child is the guest.
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn runs(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn the_pod_gets_its_network_and_the_agent_answers_until_told_to_stop() {
    if !require("the_pod_gets_its_network_and_the_agent_answers_until_told_to_stop", &NEEDS) {
        return;
    }
    let (place, worker) = (Place::new(), Worker::new(pod_network()));
    let manager = UnixDatagram::bind(place.path("notify")).unwrap();
    let mut guest = place.start(worker.user_data());
    drop(place.link(&worker).await);
    let mut notice = [0; 64];
    let length = manager.recv(&mut notice).unwrap();
    assert_eq!(&notice[..length], b"READY=1\n");
    let podns = guest.podns(&place);
    let shown = ip_inside(&podns, "address show eth0");
    assert!(shown.contains("10.244.0.5/24") && shown.contains("02:00:00:aa:bb:cc"), "{shown}");
    let routes = ip_inside(&podns, "route");
    assert!(routes.contains("default via 10.244.0.1"), "{routes}");
    let agent = place.agent();
    guest.tell(Signal::SIGTERM);
    assert_eq!(guest.wait(&place), 0, "{}", place.log());
    assert!(!runs(agent), "the agent still runs");
    let left = ip_inside(&podns, "-o link");
    assert!(left.contains("lo:") && !left.contains("eth0"), "{left}");
}

#[tokio::test]
async fn an_agent_that_ends_closes_its_links_for_good_and_the_service_goes_on() {
    if !require("an_agent_that_ends_closes_its_links_for_good_and_the_service_goes_on", &NEEDS) {
        return;
    }
    let (place, worker) = (Place::new(), Worker::new(pod_network()));
    let mut guest = place.start(worker.user_data());
    let mut link = place.link(&worker).await;
    kill(place.agent(), Signal::SIGKILL).unwrap();
    let mut rest = Vec::new();
    // EOF, with or without a TLS farewell: nobody is left to answer.
    let end = tokio::time::timeout(PATIENCE, link.read_to_end(&mut rest)).await;
    assert!(end.is_ok() && rest.is_empty(), "{end:?} {rest:?}");
    let started = Instant::now();
    while place.connect().is_ok() {
        assert!(started.elapsed() < PATIENCE, "callers are still taken:\n{}", place.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(guest.0.try_wait().unwrap().is_none(), "the service ended:\n{}", place.log());
    assert!(place.log().contains("the agent ended"), "{}", place.log());
    guest.tell(Signal::SIGTERM);
    assert_eq!(guest.wait(&place), 0);
}

#[test]
fn an_agent_that_ends_before_anybody_could_reach_it_ends_the_service_with_its_name() {
    if !require("an_agent_that_ends_before_anybody_could_reach_it_ends_the_service_with_its_name", &NEEDS) {
        return;
    }
    let (place, worker) = (Place::new(), Worker::new(pod_network()));
    let mut guest = place.start_with(worker.user_data(), Path::new("/bin/false"));
    assert_eq!(guest.wait(&place), 1, "{}", place.log());
    assert!(place.log().contains("/bin/false ended before it made its socket"), "{}", place.log());
}

#[test]
fn a_broken_message_is_one_clear_line_and_leaves_nothing() {
    if !require("a_broken_message_is_one_clear_line_and_leaves_nothing", &NEEDS) {
        return;
    }
    let place = Place::new();
    let mut guest = place.start("#cloud-config\nwrite_files: []\n");
    assert_eq!(guest.wait(&place), 1);
    assert_eq!(place.log(), "peerpods-guest: provisioning: the user data has no /run/peerpod/apf.json\n");
    assert!(!place.path("run").exists());
    assert!(!ip(&["netns", "list"]).contains(&place.podns()));
}

#[test]
fn a_worker_without_a_route_is_waited_for_and_a_stop_ends_the_wait() {
    if !require("a_worker_without_a_route_is_waited_for_and_a_stop_ends_the_wait", &NEEDS) {
        return;
    }
    let place = Place::new();
    let network = PodNetwork { worker_node_ip: "192.0.2.1/24".parse().unwrap(), ..pod_network() };
    let mut guest = place.start(Worker::new(network).user_data());
    let started = Instant::now();
    while place.connect().is_err() {
        assert!(started.elapsed() < PATIENCE, "the port did not open:\n{}", place.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    guest.tell(Signal::SIGTERM);
    assert_eq!(guest.wait(&place), 0, "{}", place.log());
    assert!(!place.log().contains("(pid "), "an agent was started:\n{}", place.log());
}
