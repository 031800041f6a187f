//! From an older build to this one: its daemon starts a sandbox, ours takes it over with link, stream and VM. `make upgrade-test` builds
//! the older programs and names their directory in `PEERPODS_OLD_BUILD`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use peerpods_test_require::Need;
use peerpods_tests::daemon::{Daemon, image, with_vms};

/// How many lines the command in the VM writes, ten a second.
const LINES: usize = 100;

#[test]
#[ignore = "needs an older build: make upgrade-test"]
fn a_pod_lives_through_the_upgrade_of_the_daemon_while_its_output_streams() {
    let test = "a_pod_lives_through_the_upgrade_of_the_daemon_while_its_output_streams";
    with_vms(test, &[Need::Variable("PEERPODS_OLD_BUILD")], upgrade);
}

fn upgrade() {
    let old = PathBuf::from(std::env::var_os("PEERPODS_OLD_BUILD").unwrap());
    let mut daemon = Daemon::start_with(image(), &old);
    let pod = daemon.id("upgrade");
    drop(daemon.succeed(&["sandbox", "create", "--id", &pod, "--pod-network", "10.155.5.0/24"]));
    drop(daemon.succeed(&["sandbox", "start", &pod, "--quiet"]));
    let links = daemon.programs_of_links();
    let created = daemon.id("created");
    drop(daemon.succeed(&["sandbox", "create", "--id", &created, "--pod-network", "10.155.6.0/24"]));
    assert_eq!(links, [old.join("peerpods-link")], "the older daemon's link runs");
    let count = format!("i=0; while [ $i -lt {LINES} ]; do echo $i; i=$((i+1)); sleep 0.1; done");
    let mut exec = daemon
        .peerpods(&["sandbox", "exec", &pod, "--no-stdin", "--", "sh", "-c", &count])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = 0;
    for (expected, line) in BufReader::new(exec.stdout.take().unwrap()).lines().enumerate() {
        assert_eq!(line.unwrap(), expected.to_string(), "a gap in the stream");
        seen += 1;
        match expected {
            15 => daemon.kill_9(),
            25 => daemon.boot_as_built(),
            50 => {
                let listed = daemon.succeed(&["sandbox", "list"]);
                assert!(listed.contains(&pod) && listed.contains("running"), "{listed}");
                assert_eq!(
                    daemon.succeed(&["sandbox", "exec", &pod, "--", "echo", "still here"]),
                    "still here\n"
                );
                assert_eq!(
                    daemon.programs_of_links(),
                    [&links[..], &links].concat(),
                    "the same links serve on"
                );
            }
            _ => {}
        }
    }
    assert!(exec.wait().unwrap().success());
    assert_eq!(seen, LINES);
    // Its link was started by the older program, which knows no tokens.
    drop(daemon.succeed(&["sandbox", "start", &created, "--quiet"]));
    assert_eq!(daemon.succeed(&["sandbox", "exec", &created, "--", "echo", "here"]), "here\n");
    let listed = daemon.succeed(&["sandbox", "list", "--output", "json"]);
    assert!(
        listed.contains("\"guest_identity\": \"stock\"") || listed.contains("\"guest_identity\":\"stock\""),
        "{listed}"
    );
    assert!(daemon.log().contains("started by an older program"), "{}", daemon.log());
    drop(daemon.succeed(&["sandbox", "stop", &created]));
    drop(daemon.succeed(&["sandbox", "stop", &pod]));
    daemon.assert_nothing_left();
}
