//! Links as units: what systemd is asked, what happens when it refuses, hangs or has the unit already, and that either kind is found by
//! its control socket.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::unistd::Pid;
use peerpods_agentlink::process::LinkProcesses;
use peerpods_agentlink::process::placement::{Placement, Wanted, Way};
use peerpods_agentlink::{Link, LinkError};
use peerpods_test_require::{Need, require};

use super::detach::{is_gone, pid_of};
use super::fake_systemd::{FakeSystemd, FakeUnit, Manner};
use super::support::{Guest, Sandbox, eventually, healthy, program};

const UNIT: &str = "peerpods-link-s1.service";

/// Shared, so that the program is copied once.
fn bin_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bin")
}

pub(crate) fn placement(wanted: Wanted, socket: PathBuf) -> Placement {
    Placement { wanted, bus: socket, bin_dir: bin_dir() }
}

fn links(wanted: Wanted, fake: &FakeSystemd) -> LinkProcesses {
    LinkProcesses::placed(program(), placement(wanted, fake.socket.clone()))
}

/// Only root is answered by systemd, and so nobody else asks it.
fn can_run(test: &str) -> bool {
    require(test, &[Need::Root])
}

fn executable(pid: Pid) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

fn description(sandbox: &Sandbox) -> String {
    format!("Agent link of the peer pod at {}", sandbox.spec.agent_socket.display())
}

fn sleeper() -> std::process::Child {
    Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_a_unit_that_outlives_daemon_and_systemd_and_is_taken_over_by_either_kind() {
    if !can_run("a_link_is_a_unit_that_outlives_daemon_and_systemd_and_is_taken_over_by_either_kind") {
        return;
    }
    let fake = FakeSystemd::start(Manner::Obliging);
    let (guest, sandbox) = (Guest::on().await, Sandbox::new());
    let _agent = guest.agent().await;
    let daemon = links(Wanted::Systemd, &fake);
    daemon.open(&sandbox.spec).await.unwrap();
    let pid = pid_of(&sandbox).await;
    assert!(executable(pid).starts_with(bin_dir()), "{:?}", executable(pid));
    daemon.connect(&sandbox.spec, &guest.target()).await.unwrap();
    let shim = sandbox.shim().await;
    daemon.open(&sandbox.spec).await.unwrap();
    assert_eq!(fake.world.lock().unwrap().count("StartTransientUnit"), 1);
    // A successor that cannot reach systemd, or does not want to, has the same link.
    let gone = placement(Wanted::Systemd, fake.socket.clone());
    let world = fake.world.clone();
    drop((daemon, fake));
    for successor in [LinkProcesses::placed(program(), gone), LinkProcesses::new(program())] {
        successor.open(&sandbox.spec).await.unwrap();
        assert_eq!(pid_of(&sandbox).await, pid);
        healthy(&shim).await.unwrap();
    }
    sandbox.links.close(&sandbox.spec).await.unwrap();
    assert!(is_gone(pid) && !sandbox.dir.exists());
    sandbox.links.close(&sandbox.spec).await.unwrap();
    drop(world);
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_asked_for_these_properties() {
    if !can_run("systemd_is_asked_for_these_properties") {
        return;
    }
    let (fake, sandbox) = (FakeSystemd::start(Manner::Obliging), Sandbox::new());
    links(Wanted::Auto, &fake).open(&sandbox.spec).await.unwrap();
    assert_eq!(fake.units(), [UNIT]);
    let world = fake.world.lock().unwrap();
    let shown = |name: &str| format!("{:?}", world.properties[name]);
    let socket = sandbox.spec.agent_socket.display().to_string();
    for (name, parts) in [
        ("Description", vec![socket.as_str()]),
        ("ExecStart", vec!["--sandbox", "\"s1\"", "--serve", "--agent-socket", &socket, "Bool(false)"]),
        ("Type", vec!["\"exec\""]),
        ("Slice", vec!["\"peerpods.slice\""]),
        ("CollectMode", vec!["\"inactive-or-failed\""]),
        ("Restart", vec!["\"no\""]),
        ("KillMode", vec!["\"mixed\""]),
        ("OOMScoreAdjust", vec!["I32(-900)"]),
        ("TimeoutStopUSec", vec!["U64(2000000)"]),
        ("MemoryHigh", vec!["U64(67108864)"]),
        ("TasksMax", vec!["U64(64)"]),
        ("StandardOutput", vec!["\"journal\""]),
    ] {
        assert!(parts.iter().all(|part| shown(name).contains(part)), "{name}: {}", shown(name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn close_ends_the_unit_and_a_sandbox_of_the_same_name_may_come_again() {
    if !can_run("close_ends_the_unit_and_a_sandbox_of_the_same_name_may_come_again") {
        return;
    }
    let (fake, sandbox) = (FakeSystemd::start(Manner::Obliging), Sandbox::new());
    let daemon = links(Wanted::Systemd, &fake);
    for _ in 0..3 {
        daemon.open(&sandbox.spec).await.unwrap();
        let pid = pid_of(&sandbox).await;
        daemon.close(&sandbox.spec).await.unwrap();
        assert!(is_gone(pid) && !sandbox.dir.exists());
        assert_eq!(fake.units(), [""; 0]);
        daemon.close(&sandbox.spec).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_openers_get_one_unit() {
    if !can_run("many_openers_get_one_unit") {
        return;
    }
    let (fake, sandbox) = (FakeSystemd::start(Manner::Obliging), Sandbox::new());
    let daemons: Vec<_> = (0..8).map(|_| links(Wanted::Systemd, &fake)).collect();
    let opened = futures::future::join_all(daemons.iter().map(|daemon| daemon.open(&sandbox.spec))).await;
    assert!(opened.iter().all(Result::is_ok), "{opened:?}");
    assert_eq!(fake.units(), [UNIT]);
    pid_of(&sandbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_systemd_gives_no_unit_auto_detaches_and_systemd_is_an_error_that_names_it() {
    if !can_run("where_systemd_gives_no_unit_auto_detaches_and_systemd_is_an_error_that_names_it") {
        return;
    }
    let denied = "org.freedesktop.DBus.Error.AccessDenied";
    for (manner, reason) in [
        (Manner::Refusing(denied), "AccessDenied"),
        (Manner::Refusing("org.freedesktop.systemd1.UnitExists"), "does not go away"),
        (Manner::HangingAtStart, "refused"),
        (Manner::Hanging, "no answer within 2s"),
        (Manner::StartingNothing, "ended before its link listened"),
    ] {
        let (fake, sandbox) = (FakeSystemd::start(manner), Sandbox::new());
        let error = links(Wanted::Systemd, &fake).open(&sandbox.spec).await.unwrap_err();
        assert!(matches!(&error, LinkError::Unit { .. }), "{manner:?}: {error:?}");
        let said = anyhow::format_err!(error);
        let said = format!("{said:#}");
        for part in [reason, UNIT, "systemctl status", "journalctl -u"] {
            assert!(said.contains(part), "{manner:?}: {part:?} is not in {said}");
        }
        assert!(!sandbox.dir.exists(), "{manner:?}: something is left");
        links(Wanted::Auto, &fake).open(&sandbox.spec).await.unwrap();
        assert_eq!(executable(pid_of(&sandbox).await), program(), "{manner:?}");
        assert_eq!(fake.units(), [""; 0], "{manner:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_is_there_is_forgotten_replaced_or_left_alone() {
    if !can_run("a_unit_that_is_there_is_forgotten_replaced_or_left_alone") {
        return;
    }
    for (description_of, child, starts) in [
        // It failed and was kept.
        (None, None, true),
        // Ours, and its link cannot be found any more.
        (None, Some(sleeper()), true),
        (Some("another daemon's"), Some(sleeper()), false),
    ] {
        let (fake, sandbox) = (FakeSystemd::start(Manner::Obliging), Sandbox::new());
        let description = description_of.map_or_else(|| description(&sandbox), str::to_owned);
        let stray = child.as_ref().map(|child| Pid::from_raw(i32::try_from(child.id()).unwrap()));
        let there = FakeUnit { description, program: "/bin/sleep".to_owned(), child };
        fake.world.lock().unwrap().units.insert(UNIT.to_owned(), there);
        let opened = links(Wanted::Systemd, &fake).open(&sandbox.spec).await;
        assert_eq!(opened.is_ok(), starts, "{opened:?}");
        if starts {
            assert!(executable(pid_of(&sandbox).await).starts_with(bin_dir()));
            assert!(stray.is_none_or(is_gone));
        } else {
            assert!(!is_gone(stray.unwrap()), "another daemon's link was ended");
            let mut world = fake.world.lock().unwrap();
            world.units.get_mut(UNIT).unwrap().child.as_mut().unwrap().kill().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn close_ends_a_unit_whose_sockets_were_removed() {
    if !can_run("close_ends_a_unit_whose_sockets_were_removed") {
        return;
    }
    let (fake, sandbox) = (FakeSystemd::start(Manner::Obliging), Sandbox::new());
    let daemon = links(Wanted::Auto, &fake);
    daemon.open(&sandbox.spec).await.unwrap();
    let pid = pid_of(&sandbox).await;
    // With it the link does not end by itself when its directory is removed.
    let _shim = sandbox.raw_shim().await;
    fs::remove_file(sandbox.dir.join("link.sock")).unwrap();
    fs::remove_file(&sandbox.spec.agent_socket).unwrap();
    daemon.close(&sandbox.spec).await.unwrap();
    eventually("the link is gone", || is_gone(pid)).await;
    assert_eq!(fake.units(), [""; 0]);
    assert!(!sandbox.dir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_a_unit_runs_stays_on_the_host_and_an_older_one_goes() {
    if !can_run("a_program_that_a_unit_runs_stays_on_the_host_and_an_older_one_goes") {
        return;
    }
    let (fake, sandbox, host) =
        (FakeSystemd::start(Manner::Obliging), Sandbox::new(), tempfile::tempdir().unwrap());
    let old = |version: &str| host.path().join(version).join("peerpods-link");
    for version in ["0.0.1", "0.0.2"] {
        fs::create_dir(host.path().join(version)).unwrap();
        fs::write(old(version), "x").unwrap();
    }
    let used = FakeUnit {
        description: "another".to_owned(),
        program: old("0.0.2").display().to_string(),
        child: Some(sleeper()),
    };
    fake.world.lock().unwrap().units.insert("peerpods-link-s0.service".to_owned(), used);
    let mut placement = placement(Wanted::Systemd, fake.socket.clone());
    placement.bin_dir = host.path().to_owned();
    LinkProcesses::placed(program(), placement).open(&sandbox.spec).await.unwrap();
    assert!(!old("0.0.1").exists() && old("0.0.2").exists());
    let ours = executable(pid_of(&sandbox).await);
    assert!(ours.starts_with(host.path()) && ours.ends_with("peerpods-link"), "{ours:?}");
    let mut world = fake.world.lock().unwrap();
    world.units.get_mut("peerpods-link-s0.service").unwrap().child.as_mut().unwrap().kill().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_decision_says_who_answered_or_why_nobody_did() {
    if !can_run("the_decision_says_who_answered_or_why_nobody_did") {
        return;
    }
    for (manner, way, part) in [
        (Manner::Obliging, Way::Systemd, "systemd 252 (fake) at"),
        (Manner::Hanging, Way::Detached, "no answer within 2s"),
    ] {
        let fake = FakeSystemd::start(manner);
        let choice = placement(Wanted::Auto, fake.socket.clone()).decide().await.unwrap();
        assert!(choice.way == way && choice.why.contains(part), "{choice:?}");
    }
    let nowhere = placement(Wanted::Auto, "/nonexistent/bus".into());
    let choice = tokio::time::timeout(Duration::from_secs(2), nowhere.decide()).await.unwrap().unwrap();
    assert!(choice.way == Way::Detached && choice.why.contains("/nonexistent/bus"), "{choice:?}");
}
