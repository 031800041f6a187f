//! No secret lies around: a pod's whole life with the real daemon at its most talkative, a real guest in QEMU, and every secret there is
//! looked for in user data, logs, the system's journal, process arguments and environments, and on the node's disk. Needs what
//! `qemu_pod` needs.
//!
//! The secrets are learned where they have to be: from the authority's file, from what the daemon tells the link (a recorder sits on the
//! control socket), and from the user data while QEMU reads it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use peerpods_agentlink::ca::ClusterCa;
use peerpods_agentlink::process::LinkProcesses;
use peerpods_agentlink::{GuestTrust, Link, LinkError, LinkIdentity, LinkSpec, LinkTarget};
use peerpods_podvm::guest_config::ApfConfig;
use peerpods_podvm::user_data::{APF_PATH, CloudConfig};
use peerpods_tests::canary::{self, Finding, Secret};
use peerpods_tests::daemon::{Daemon, image, with_vms};
use peerpods_tests::node::built;

#[test]
fn with_our_guest_no_secret_is_left_anywhere_and_what_was_in_user_data_is_worthless() {
    with_vms("with_our_guest_no_secret_is_left_anywhere_and_what_was_in_user_data_is_worthless", &[], || {
        let mut life = Life::begin("auto");
        assert_eq!(life.identity(), "token");
        let told = life.told();
        assert!(told.tls_server_key.is_none(), "a key in user data");
        let log = life.daemon.log();
        assert!(!log.contains("stock form"), "{log}");
        life.assert_no_secret();
        life.thieves_get_nothing();
        // The daemon dies and comes back, and knows the guest by its key.
        life.daemon.kill_9();
        life.daemon.boot();
        life.works();
        assert_eq!(life.identity(), "token");
        life.assert_no_secret();
        life.end();
    });
}

#[test]
fn with_a_stock_guest_the_key_is_in_user_data_alone_and_the_log_says_so() {
    with_vms("with_a_stock_guest_the_key_is_in_user_data_alone_and_the_log_says_so", &[], || {
        let mut life = Life::begin("stock");
        assert_eq!(life.identity(), "stock");
        let told = life.told();
        let key = told.tls_server_key.as_ref().map(|key| Secret::of_key("the VM's key", key.expose()));
        assert!(told.admission.is_none());
        life.secrets.push(key.unwrap());
        let log = life.daemon.log();
        assert_eq!(log.matches("stock form: the VM's TLS key is in its user data").count(), 1, "{log}");
        life.assert_no_secret();
        life.end();
    });
}

/// A sandbox that runs, with all its secrets.
struct Life {
    daemon: Daemon,
    sandbox: String,
    /// What the VM was told at birth.
    user_data: String,
    secrets: Vec<Secret>,
    /// When there were none yet.
    began: SystemTime,
}

impl Life {
    fn begin(form: &str) -> Self {
        let began = SystemTime::now();
        let lines = format!("log-level = \"trace\"\nguest-identity = \"{form}\"");
        let daemon = Daemon::start_configured(image(), &lines);
        let sandbox = daemon.id("canary");
        drop(daemon.succeed(&["sandbox", "create", "--id", &sandbox, "--pod-network", "10.155.7.0/24"]));
        let recorder = Recorder::on(&daemon.path("pods").join(&sandbox).join("link.sock"));
        let watcher = Watcher::of(daemon.path("qemu"));
        drop(daemon.succeed(&["sandbox", "start", &sandbox, "--quiet"]));
        let (targets, user_data) = (recorder.end(), watcher.end());
        let ca = fs::read_to_string(daemon.path("state/ca/ca.pem")).unwrap();
        let mut secrets = vec![Secret::of_key("the authority's key", &ca)];
        for target in &targets {
            secrets.push(Secret::of_key("a link's key", &target.identity.key));
            if let GuestTrust::Token(token) = &target.guest {
                secrets.push(Secret::new("the token", token.expose().to_vec()));
            }
        }
        assert!(!targets.is_empty() && !user_data.is_empty(), "nothing was recorded");
        let life = Self { daemon, sandbox, user_data, secrets, began };
        life.works();
        life
    }

    fn works(&self) {
        let said = self.daemon.succeed(&["sandbox", "exec", &self.sandbox, "--", "echo", "hello"]);
        assert_eq!(said, "hello\n");
    }

    fn listed(&self) -> serde_json::Value {
        let listed = self.daemon.succeed(&["sandbox", "list", "--output", "json"]);
        let mut listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        listed[0].take()
    }

    fn identity(&self) -> String {
        self.listed()["guest_identity"].as_str().unwrap().to_owned()
    }

    fn told(&self) -> ApfConfig {
        let document = CloudConfig::parse(&self.user_data).unwrap();
        let apf = document.files.iter().find(|file| file.path == APF_PATH).unwrap();
        ApfConfig::from_json(&apf.content).unwrap()
    }

    /// Every place but the authority's own file is free of every secret.
    fn assert_no_secret(&self) {
        let mut found = canary::in_files(&self.secrets, &[&self.daemon.path("")]);
        found.extend(canary::in_places(&self.secrets, self.journals().into_iter()));
        found.extend(canary::in_processes(&self.secrets));
        let authority = self.daemon.path("state/ca/ca.pem").display().to_string();
        let allowed = Finding { secret: "the authority's key".to_owned(), place: authority, mode: 0o600 };
        assert_eq!(found, [allowed]);
        // Names of sessions cannot be learned from outside. None of their size is in any log.
        let known = self.listed()["id"].as_str().unwrap().to_owned();
        for path in self.logs() {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            let mut runs = canary::long_hexadecimal(&text);
            runs.retain(|run| !known.contains(run) && !self.is_public(run));
            assert_eq!(runs, Vec::<&str>::new(), "in {}", path.display());
        }
        self.assert_modes();
    }

    /// The system's journal, as far as it was written to since this began. A machine keeps gigabytes of older ones.
    fn journals(&self) -> Vec<PathBuf> {
        let all = ["/run/log/journal", "/var/log/journal"].map(|dir| canary::files_below(Path::new(dir)));
        let changed = |path: &PathBuf| fs::metadata(path).and_then(|meta| meta.modified());
        all.into_iter().flatten().filter(|path| changed(path).is_ok_and(|at| at >= self.began)).collect()
    }

    fn logs(&self) -> Vec<PathBuf> {
        let mut logs =
            vec![self.daemon.path("log"), self.daemon.path("pods").join(&self.sandbox).join("link.log")];
        logs.extend(canary::files_below(&self.daemon.path("vms/console")));
        logs
    }

    /// The name of the guest's key is no secret, and is logged.
    fn is_public(&self, run: &str) -> bool {
        let record = self.daemon.path("state/journal").join(format!("{}.json", self.sandbox));
        fs::read_to_string(record).unwrap_or_default().contains(run)
    }

    /// What holds keys in memory or on disk is closed to others.
    fn assert_modes(&self) {
        let pod = self.daemon.path("pods").join(&self.sandbox);
        let vms = canary::files_below(&self.daemon.path("vms/console"));
        let places = [pod.join("agent.ttrpc"), pod.join("link.sock"), pod.join("link.log")];
        for path in places.into_iter().chain(vms).chain([self.daemon.path("state/ca/ca.pem")]) {
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
        }
        let left = canary::files_below(&self.daemon.path("qemu"));
        assert!(left.iter().all(|path| !path.ends_with("user-data")), "user data lies around: {left:?}");
    }

    /// Who read the user data, with a certificate of the cluster and with one of his own.
    fn thieves_get_nothing(&self) {
        let token = self.told().admission.unwrap().token;
        let listed = self.listed();
        let address = format!("{}:15150", listed["addresses"][0].as_str().unwrap()).parse().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let ours = ClusterCa::load_or_create(&self.daemon.path("state/ca")).unwrap();
        let theirs = ClusterCa::load_or_create(elsewhere.path()).unwrap();
        for (who, ca, expected) in [("with a certificate", &ours, "spent"), ("without", &theirs, "alert")] {
            let pair = ca.issue_client("thief").unwrap();
            let (certificate, key) = (pair.certificate.clone(), pair.expose_key().to_owned());
            let target = LinkTarget {
                address,
                server_name: listed["vm"].as_str().unwrap().to_owned(),
                identity: LinkIdentity { certificate, key, authority: ours.certificate_pem().to_owned() },
                guest: GuestTrust::Token(token.clone()),
                deadline: Duration::from_secs(60),
            };
            let reason = attempt(&elsewhere.path().join(who.replace(' ', "-")), &target);
            assert!(reason.contains(expected), "{who}: {reason}");
        }
        let console = canary::files_below(&self.daemon.path("vms/console"));
        let text = fs::read_to_string(&console[0]).unwrap();
        assert!(text.contains("ALARM"), "the guest does not tell: {text}");
    }

    fn end(self) {
        drop(self.daemon.succeed(&["sandbox", "stop", &self.sandbox]));
        self.daemon.assert_nothing_left();
        let found = canary::in_files(&self.secrets, &[&self.daemon.path("")]);
        assert_eq!(found.len(), 1, "left after the pod's end: {found:?}");
    }
}

/// A link of a thief's own; why it is refused.
fn attempt(dir: &Path, target: &LinkTarget) -> String {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let links = LinkProcesses::new(built("peerpods-link"));
        let spec = LinkSpec { sandbox: "thief".parse().unwrap(), agent_socket: dir.join("agent.ttrpc") };
        links.open(&spec).await.unwrap();
        let refused = links.connect(&spec, target).await;
        links.close(&spec).await.unwrap();
        match refused {
            Err(LinkError::Untrusted { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    })
}

/// Sits on a link's control socket and writes down what the daemon tells the link.
struct Recorder {
    socket: PathBuf,
    aside: PathBuf,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    fn on(socket: &Path) -> Self {
        let aside = socket.with_extension("real");
        fs::rename(socket, &aside).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (to, written) = (aside.clone(), heard.clone());
        std::thread::spawn(move || {
            for daemon in listener.incoming().flatten() {
                let Ok(link) = UnixStream::connect(&to) else { return };
                pass(link.try_clone().unwrap(), daemon.try_clone().unwrap(), None);
                pass(daemon, link, Some(written.clone()));
            }
        });
        Self { socket: socket.to_owned(), aside, heard }
    }

    /// Gives the link its socket back; the targets it was told.
    fn end(self) -> Vec<LinkTarget> {
        fs::rename(&self.aside, &self.socket).unwrap();
        let heard = self.heard.lock().unwrap();
        let lines = heard.split(|byte| *byte == b'\n');
        let requests = lines.filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
        requests.filter_map(|mut request| serde_json::from_value(request["target"].take()).ok()).collect()
    }
}

fn pass(mut from: UnixStream, mut to: UnixStream, written: Option<Arc<Mutex<Vec<u8>>>>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if let Some(written) = &written {
                written.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        drop(to.shutdown(std::net::Shutdown::Write));
    });
}

/// Reads the user data while it lies there for QEMU.
struct Watcher {
    over: Arc<AtomicBool>,
    reading: std::thread::JoinHandle<String>,
}

impl Watcher {
    fn of(run_dir: PathBuf) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let reading = std::thread::spawn(move || {
            let mut longest = String::new();
            while !stop.load(Ordering::Relaxed) {
                for entry in fs::read_dir(&run_dir).into_iter().flatten().flatten() {
                    let path = entry.path().join("user-data");
                    let Ok(text) = fs::read_to_string(&path) else { continue };
                    let mode = fs::metadata(&path).map_or(0o600, |meta| meta.permissions().mode() & 0o777);
                    assert_eq!(mode, 0o600, "others can read the user data");
                    if text.len() > longest.len() {
                        longest = text;
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            longest
        });
        Self { over, reading }
    }

    fn end(self) -> String {
        self.over.store(true, Ordering::Relaxed);
        self.reading.join().unwrap()
    }
}
