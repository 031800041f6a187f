//! On a host of the test's own: a directory with what a node has. The container runtimes are the test's, too; whether a real one takes what
//! is placed is tried in `tests/it/install_node.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use peerpods_podvm::node_files::SHIM_CONFIGURATION;
use tempfile::TempDir;

use super::*;
use crate::installer::plan::{CRIO_DROP_IN, Files};

const MAIN_2: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"pause:1\"";
const MAIN_3: &str =
    "version = 3\nimports = []\n[plugins.'io.containerd.cri.v1.runtime']\nenable_selinux = false\n";

/// Container runtimes that run, were restarted, and come back as often as they are told to.
#[derive(Default)]
struct Fake {
    running: Vec<Runtime>,
    restarted: Mutex<Vec<Runtime>>,
    /// How many restarts from now on do not work.
    bad: Mutex<u32>,
}

#[async_trait::async_trait]
impl Units for Fake {
    async fn runs(&self, runtime: Runtime) -> Result<bool, UnitError> {
        Ok(self.running.contains(&runtime))
    }

    async fn restart(&self, runtime: Runtime) -> Result<(), UnitError> {
        self.restarted.lock().unwrap().push(runtime);
        let mut bad = self.bad.lock().unwrap();
        match *bad {
            0 => Ok(()),
            _ => {
                *bad -= 1;
                Err(UnitError::Away { unit: runtime.unit(), state: "failed".to_owned() })
            }
        }
    }
}

struct Node {
    root: TempDir,
    host: Host,
    units: Fake,
}

impl Node {
    fn new(running: &[Runtime], files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let node = Self {
            host: Host::at(root.path()).unwrap(),
            units: Fake { running: running.to_vec(), ..Fake::default() },
            root,
        };
        for directory in ["var/lib", "etc", "opt"] {
            fs::create_dir_all(node.at(directory)).unwrap();
        }
        node.put("/usr/bin/containerd-shim-kata-v2", "");
        files.iter().for_each(|(path, text)| node.put(path, text));
        node
    }

    fn containerd(main: &str) -> Self {
        Self::new(&[Runtime::Containerd], &[(containerd::MAIN, main)])
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn put(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    fn get(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    async fn converge(&self, wish: &Wish) -> Result<Report, InstallError> {
        converge(&self.host, &self.units, wish).await
    }

    async fn steps(&self, wish: &Wish) -> Vec<Step> {
        plan::plan(wish, &observe::observe(&self.host, &self.units).await.unwrap()).unwrap()
    }

    fn restarts(&self) -> Vec<Runtime> {
        std::mem::take(&mut self.units.restarted.lock().unwrap())
    }

    /// Every path with its kind, mode, owner and content.
    fn tree(&self) -> BTreeMap<PathBuf, String> {
        let mut tree = BTreeMap::new();
        walk(self.root.path(), &mut tree);
        tree
    }
}

fn walk(directory: &Path, tree: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let found = fs::symlink_metadata(&path).unwrap();
        let content = if found.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let link = fs::read_link(&path).unwrap_or_default();
        tree.insert(
            path.clone(),
            format!("{:o} {} {} {link:?} {content:?}", found.mode(), found.uid(), found.gid()),
        );
        if found.is_dir() {
            walk(&path, tree);
        }
    }
}

fn wish() -> Wish {
    let classes = vec!["kata-remote-cc".to_owned()];
    Wish::Files(Files { classes, hypervisor_timeout: 900, log_level: None })
}

/// Hosts of each kind that there is.
fn nodes() -> Vec<(&'static str, Node)> {
    let conf_d = "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n";
    let other = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"pause:2\"\n";
    vec![
        ("containerd 1", Node::containerd(MAIN_2)),
        ("containerd 2", Node::containerd(MAIN_3)),
        ("containerd 2 with conf.d", {
            Node::new(
                &[Runtime::Containerd],
                &[(containerd::MAIN, conf_d), ("/etc/containerd/conf.d/a.toml", "version = 3\n")],
            )
        }),
        ("containerd 1 with another's section", {
            let main = "version = 2\nimports = ['/etc/containerd/conf.d/*.toml']\n";
            Node::new(
                &[Runtime::Containerd],
                &[(containerd::MAIN, main), ("/etc/containerd/conf.d/99-gpu.toml", other)],
            )
        }),
        ("containerd without configuration", Node::new(&[Runtime::Containerd], &[])),
        ("CRI-O", Node::new(&[Runtime::Crio], &[("/etc/crio/crio.conf.d/10-a", "[crio.runtime]\n")])),
        ("CRI-O, with Docker beside", {
            let docker = ("/etc/containerd/config.toml", "disabled_plugins = [\"cri\"]\n");
            Node::new(&[Runtime::Crio, Runtime::Containerd], &[("/etc/crio/crio.conf", ""), docker])
        }),
        ("with an empty directory of its own", {
            let node = Node::containerd(MAIN_3);
            fs::create_dir_all(node.at("/opt/kata")).unwrap();
            node
        }),
    ]
}

#[tokio::test]
async fn what_is_placed_is_placed_once_and_removed_without_a_trace() {
    for (what, node) in nodes() {
        let before = node.tree();
        let report = node.converge(&wish()).await.unwrap();
        let reader = node.units.running[0];
        assert_eq!((&report.restarted, node.restarts()), (&vec![reader], vec![reader]), "{what}");
        assert!(node.get(SHIM_CONFIGURATION).starts_with(HEADER), "{what}");
        let placed = node.tree();
        assert!(node.converge(&wish()).await.unwrap().is_empty(), "{what}");
        assert_eq!((node.tree() == placed, node.restarts().is_empty()), (true, true), "{what}");

        let report = node.converge(&Wish::Nothing).await.unwrap();
        assert_eq!((&report.restarted, node.restarts()), (&vec![reader], vec![reader]), "{what}");
        assert_eq!(node.tree(), before, "{what}");
        assert!(
            node.converge(&Wish::Nothing).await.unwrap().is_empty() && node.restarts().is_empty(),
            "{what}"
        );
    }
}

#[tokio::test]
async fn each_container_runtime_has_the_handlers_where_it_reads_them() {
    let nodes: BTreeMap<_, _> = nodes().into_iter().collect();
    for node in nodes.values() {
        node.converge(&wish()).await.unwrap();
    }
    let has = |node: &str, path: &str| {
        let text = nodes[node].get(path);
        containerd::Config::read(&text).unwrap().has_handler("kata-remote-cc")
    };
    assert!(has("containerd 1", containerd::MAIN));
    assert!(!nodes["containerd 1"].at(containerd::DROP_IN).exists());
    assert!(has("containerd 2", containerd::DROP_IN));
    assert!(containerd::Config::read(&nodes["containerd 2"].get(containerd::MAIN)).unwrap().imports_ours());
    assert!(has("containerd 2 with conf.d", containerd::DROP_IN));
    assert!(!nodes["containerd 2 with conf.d"].get(containerd::MAIN).contains("peerpods"), "it is covered");
    assert!(has("containerd 1 with another's section", "/etc/containerd/conf.d/99-gpu.toml"));
    assert!(!nodes["containerd 1 with another's section"].get(containerd::MAIN).contains("peerpods"));
    assert!(has("containerd without configuration", containerd::MAIN));
    for node in ["CRI-O", "CRI-O, with Docker beside"] {
        assert!(nodes[node].get(CRIO_DROP_IN).contains("runtimes.kata-remote-cc]"));
    }
    assert_eq!(nodes["CRI-O, with Docker beside"].get(containerd::MAIN), "disabled_plugins = [\"cri\"]\n");
}

/// After each step of a plan the process dies; whoever comes next finishes, and an end after that leaves no trace.
#[tokio::test]
async fn after_a_crash_at_any_step_the_next_run_finishes() {
    for kind in 0..nodes().len() {
        let steps = nodes()[kind].1.steps(&wish()).await.len();
        for dies_after in 0..=steps {
            let (what, node) = nodes().swap_remove(kind);
            let before = node.tree();
            cut_off(&node, &wish(), dies_after).await;
            let restarted = node.restarts().len();
            node.converge(&wish()).await.unwrap();
            assert!(restarted + node.restarts().len() > 0, "{what} {dies_after}: nobody read the files");
            assert!(node.converge(&wish()).await.unwrap().is_empty(), "{what} {dies_after}");

            let removing = node.steps(&Wish::Nothing).await.len();
            let at = dies_after.min(removing);
            cut_off(&node, &Wish::Nothing, at).await;
            node.converge(&Wish::Nothing).await.unwrap();
            assert!(!node.restarts().is_empty(), "{what} {at}");
            assert_eq!(node.tree(), before, "{what} {dies_after}");
        }
    }
}

/// An install that was cut off is removed, too.
#[tokio::test]
async fn after_a_crash_at_any_step_removing_leaves_no_trace() {
    for kind in 0..nodes().len() {
        let steps = nodes()[kind].1.steps(&wish()).await.len();
        for dies_after in 0..=steps {
            let (what, node) = nodes().swap_remove(kind);
            let before = node.tree();
            cut_off(&node, &wish(), dies_after).await;
            node.converge(&Wish::Nothing).await.unwrap();
            assert_eq!(node.tree(), before, "{what} {dies_after}");
        }
    }
}

/// Does so many steps, and half of a write after them.
async fn cut_off(node: &Node, wish: &Wish, dies_after: usize) {
    let steps = node.steps(wish).await;
    for one in steps.iter().take(dies_after) {
        step(&node.host, &node.units, one).await.unwrap();
    }
    if let Some(Step::Write { path, .. }) = steps.get(dies_after) {
        let directory = path.rsplit_once('/').unwrap().0.replace("/crio.conf.d", "");
        node.put(&format!("{directory}/.peerpods-install-node"), "half");
    }
}

#[tokio::test]
async fn a_runtime_that_does_not_come_back_is_given_back_what_it_had() {
    for (what, node) in nodes() {
        let before = node.tree();
        *node.units.bad.lock().unwrap() = 1;
        let error = node.converge(&wish()).await.unwrap_err();
        assert!(matches!(error, InstallError::Restored(_)), "{what}: {error:?}");
        assert_eq!(node.restarts().len(), 2, "{what}: once with ours, once with what there was");
        let remembered = node.get(state::PATH);
        assert!(remembered.contains("did not come back"), "{remembered}");
        let again = node.converge(&wish()).await.unwrap_err();
        assert!(matches!(again, InstallError::Fault(Fault::FailedBefore { .. })), "{what}: {again:?}");
        assert!(node.restarts().is_empty(), "{what}: not over and over");
        // The files but for the directories that were made, which an end takes away.
        node.converge(&Wish::Nothing).await.unwrap();
        assert_eq!(node.tree(), before, "{what}");
    }
    let node = Node::containerd(MAIN_2);
    *node.units.bad.lock().unwrap() = 2;
    let error = node.converge(&wish()).await.unwrap_err();
    assert!(matches!(error, InstallError::Broken { .. }), "{error:?}");
    assert_eq!(node.get(containerd::MAIN), MAIN_2);
}

#[tokio::test]
async fn a_change_that_does_not_work_gives_back_the_files_before_it() {
    let node = Node::containerd(MAIN_3);
    node.converge(&wish()).await.unwrap();
    let first = node.get(containerd::DROP_IN);
    let classes = vec!["kata-remote-cc".to_owned(), "kata-remote".to_owned()];
    let more = Wish::Files(Files { classes, hypervisor_timeout: 900, log_level: Some("debug".to_owned()) });
    *node.units.bad.lock().unwrap() = 1;
    node.converge(&more).await.unwrap_err();
    assert_eq!(node.get(containerd::DROP_IN), first);
    assert!(node.converge(&wish()).await.unwrap().is_empty(), "what was there is still as wished then");
    node.converge(&more).await.unwrap();
    assert!(node.get(containerd::DROP_IN).contains("level = \"debug\""));
}

#[tokio::test]
async fn what_is_not_ours_is_refused_by_name_and_stays() {
    for (path, running) in [
        (SHIM_CONFIGURATION, Runtime::Containerd),
        (containerd::DROP_IN, Runtime::Containerd),
        (CRIO_DROP_IN, Runtime::Crio),
    ] {
        let node = Node::new(&[running], &[(containerd::MAIN, MAIN_3), (path, "# mine\n")]);
        let before = node.tree();
        let error = node.converge(&wish()).await.unwrap_err().to_string();
        assert!(error.contains(path), "{error}");
        assert_eq!(node.tree(), before);
        node.converge(&Wish::Nothing).await.unwrap();
        assert_eq!(node.tree(), before, "an end leaves it as well");
    }
}

#[tokio::test]
async fn links_lead_nowhere_else_and_are_not_written_through() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("passwd"), "root").unwrap();
    // A file of the container in the place of each file of ours, and a directory that leads out.
    let node = Node::containerd(MAIN_3);
    fs::create_dir_all(node.at("/etc/containerd/conf.d")).unwrap();
    symlink(outside.path().join("passwd"), node.at(containerd::DROP_IN)).unwrap();
    assert!(node.converge(&wish()).await.unwrap_err().to_string().contains(containerd::DROP_IN));
    let node = Node::containerd(MAIN_3);
    symlink(outside.path(), node.at("/opt/kata")).unwrap();
    assert!(node.converge(&wish()).await.is_err());
    let node = Node::containerd(MAIN_3);
    symlink("../../../../../../../../tmp", node.at("/etc/containerd/conf.d")).unwrap();
    fs::create_dir_all(node.at("/tmp")).unwrap();
    node.converge(&wish()).await.unwrap();
    assert!(node.at("/tmp/peerpods.toml").exists(), "it is the host's /tmp");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(outside.path().join("passwd")).unwrap(), "root");

    // Where somebody else manages the main file.
    let node = Node::new(&[Runtime::Containerd], &[("/etc/static/config.toml", MAIN_2)]);
    fs::create_dir_all(node.at("/etc/containerd")).unwrap();
    symlink("/etc/static/config.toml", node.at(containerd::MAIN)).unwrap();
    let error = node.converge(&wish()).await.unwrap_err().to_string();
    assert!(error.contains("a symbolic link"), "{error}");
}

#[tokio::test]
async fn drift_is_put_right_and_an_edited_block_is_told() {
    let node = Node::containerd(MAIN_3);
    node.converge(&wish()).await.unwrap();
    let good = node.tree();
    fs::remove_file(node.at(containerd::DROP_IN)).unwrap();
    node.put(SHIM_CONFIGURATION, &format!("{HEADER}bent"));
    let report = node.converge(&wish()).await.unwrap();
    assert_eq!((report.written.len(), report.restarted), (2, vec![Runtime::Containerd]));
    assert_eq!(node.tree(), good);
    node.put(SHIM_CONFIGURATION, &format!("{HEADER}bent"));
    node.restarts();
    node.converge(&wish()).await.unwrap();
    assert!(node.restarts().is_empty(), "the shim reads its file for each pod");

    let node = Node::containerd(MAIN_2);
    node.converge(&wish()).await.unwrap();
    let cut = node.get(containerd::MAIN).replace("# END peerpods install-node\n", "");
    node.put(containerd::MAIN, &cut);
    for wish in [wish(), Wish::Nothing] {
        let error = node.converge(&wish).await.unwrap_err().to_string();
        assert!(error.contains(containerd::MAIN) && error.contains("BEGIN"), "{error}");
    }
}

#[tokio::test]
async fn a_node_that_got_another_containerd_gets_the_other_form() {
    let node = Node::containerd(MAIN_2);
    node.converge(&wish()).await.unwrap();
    let migrated = node.get(containerd::MAIN).replace("version = 2", "version = 3");
    node.put(containerd::MAIN, &migrated);
    node.converge(&wish()).await.unwrap();
    let main = node.get(containerd::MAIN);
    assert!(!main.contains("BEGIN") && containerd::Config::read(&main).unwrap().imports_ours(), "{main}");
    assert!(node.at(containerd::DROP_IN).exists());
    node.converge(&Wish::Nothing).await.unwrap();
    assert_eq!(node.get(containerd::MAIN), MAIN_2.replace("version = 2", "version = 3"));
}
