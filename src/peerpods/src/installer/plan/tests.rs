use peerpods_podvm::node_files::SHIM_CONFIGURATION;

use super::*;
use crate::installer::containerd::{DROP_IN, MAIN};
use crate::installer::state::Failed;

fn observed(running: &[Runtime], files: &[(&str, &str)]) -> Observed {
    let files =
        files.iter().map(|(path, text)| ((*path).to_owned(), File::Text((*text).to_owned()))).collect();
    Observed {
        shim: Some("/opt/kata/bin/containerd-shim-kata-v2".to_owned()),
        running: running.iter().copied().collect(),
        files,
        now: 1_000_000,
        ..Observed::default()
    }
}

fn wish(classes: &[&str]) -> Wish {
    let classes = classes.iter().map(|class| (*class).to_owned()).collect();
    Wish::Files(Files { classes, hypervisor_timeout: 900, log_level: None })
}

fn faulty(observed: &Observed) -> Fault {
    plan(&wish(&["kata-remote-cc"]), observed).unwrap_err()
}

fn written<'a>(steps: &'a [Step], at: &str) -> Option<&'a str> {
    steps.iter().find_map(|step| match step {
        Step::Write { path, text } if path == at => Some(text.as_str()),
        _ => None,
    })
}

#[test]
fn what_is_owed_is_remembered_before_it_is_begun_and_forgotten_after() {
    let mut world = observed(&[Runtime::Containerd], &[(MAIN, "version = 3\n")]);
    world.missing = ["/etc/containerd/conf.d", "/etc/crio", "/etc/crio/crio.conf.d", "/opt/kata"]
        .map(str::to_owned)
        .into();
    let steps = plan(&wish(&["kata-remote-cc"]), &world).unwrap();
    let kinds: Vec<String> = steps
        .iter()
        .map(|step| match step {
            Step::Remember(state) if state.owed.is_empty() => "forget".to_owned(),
            Step::Remember(_) => "remember".to_owned(),
            Step::MakeDirectory(path) => format!("make {path}"),
            Step::Write { path, .. } => format!("write {path}"),
            Step::Restart(runtime) => format!("restart {runtime}"),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "remember",
            "make /etc/containerd/conf.d",
            "make /opt/kata",
            &format!("write {SHIM_CONFIGURATION}"),
            &format!("write {DROP_IN}"),
            &format!("write {MAIN}"),
            "restart containerd.service",
            "forget",
        ]
    );
    let Some(Step::Remember(done)) = steps.last() else { panic!("{steps:?}") };
    assert_eq!(done.made.len(), 2, "a directory that nothing goes to is not made");
}

#[test]
fn a_restart_that_is_owed_is_made_up_for() {
    let mut world = observed(&[Runtime::Crio], &[]);
    let steps = plan(&wish(&["kata-remote-cc"]), &world).unwrap();
    for step in &steps {
        if let Step::Write { path, text } = step {
            world.files.insert(path.clone(), File::Text(text.clone()));
        }
    }
    let Some(Step::Remember(begun)) = steps.first() else { panic!("{steps:?}") };
    world.state = Some(begun.clone());
    let rest = plan(&wish(&["kata-remote-cc"]), &world).unwrap();
    assert_eq!(rest, [Step::Restart(Runtime::Crio), Step::Remember(State::default())]);
    world.state = None;
    assert_eq!(plan(&wish(&["kata-remote-cc"]), &world).unwrap(), []);
}

#[test]
fn the_nodes_own_handler_is_there_where_kata_is_and_nobody_has_it() {
    let mut world = observed(&[Runtime::Crio], &[]);
    world.local = Some("/opt/kata/share/defaults/kata-containers/configuration.toml".to_owned());
    let steps = plan(&wish(&[]), &world).unwrap();
    let text = written(&steps, CRIO_DROP_IN).unwrap();
    assert!(text.contains("[crio.runtime.runtimes.kata]") && text.contains("/opt/kata/bin/"), "{text}");
    assert_eq!(written(&steps, SHIM_CONFIGURATION), None, "nobody asked for peer pods");

    let deployed = "/etc/crio/crio.conf.d/99-kata-deploy";
    let text = "[crio.runtime.runtimes.kata]\nruntime_path = \"x\"\n";
    world.files.insert(deployed.to_owned(), File::Text(text.to_owned()));
    world.of_crio.push(deployed.to_owned());
    let steps = plan(&wish(&["kata-remote-cc"]), &world).unwrap();
    assert!(!written(&steps, CRIO_DROP_IN).unwrap().contains("runtimes.kata]"));
    world.local = None;
    assert_eq!(plan(&wish(&[]), &world).unwrap(), [], "there is nothing to add");
}

#[test]
fn why_nothing_is_done_is_said_with_what_to_do() {
    let good = || observed(&[Runtime::Containerd], &[(MAIN, "version = 2\n")]);
    assert_eq!(faulty(&Observed { shim: None, ..good() }), Fault::NoShim);
    assert_eq!(faulty(&observed(&[], &[])), Fault::NoRuntime);
    assert_eq!(plan(&wish(&[]), &good()).unwrap_err(), Fault::NothingToPlace);
    for (text, told) in [
        ("version = 1\n", "containerd config migrate"),
        ("root = '/x'\n", "version 1"),
        ("version = \n", "no TOML"),
        ("version = 2\ndisabled_plugins = ['cri']\n", "disabled_plugins"),
        ("version = 2\nplugins = {}\n", "cannot be added"),
    ] {
        let fault = faulty(&observed(&[Runtime::Containerd], &[(MAIN, text)])).to_string();
        assert!(fault.contains(told) && fault.contains(MAIN), "{text}: {fault}");
    }
    let taken = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.kata-remote-cc]\n";
    let fault = faulty(&observed(&[Runtime::Containerd], &[(MAIN, taken)]));
    assert_eq!(fault, Fault::Taken { path: MAIN.to_owned(), handler: "kata-remote-cc".to_owned() });
}

#[test]
fn what_did_not_work_is_left_alone_for_a_while_unless_it_is_something_else() {
    let mut world = observed(&[Runtime::Containerd], &[(MAIN, "version = 2\n")]);
    let steps = plan(&wish(&["kata-remote-cc"]), &world).unwrap();
    let failed = Failed { digest: digest_of(&steps), at: world.now, reason: "it is failed".to_owned() };
    world.state = Some(State { failed: Some(failed), ..State::default() });
    assert_eq!(faulty(&world), Fault::FailedBefore { reason: "it is failed".to_owned() });
    assert!(plan(&wish(&["other"]), &world).is_ok());
    assert!(plan(&Wish::Nothing, &world).is_ok());
    world.now += LEFT_ALONE;
    let steps = plan(&wish(&["kata-remote-cc"]), &world).unwrap();
    assert_eq!(steps.last(), Some(&Step::Remember(State::default())), "and forgotten when it works");
}
