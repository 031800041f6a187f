//! The real thing: the programs as processes, a real Linux guest in QEMU, the shim's API, the tunnel and the link. Needs root, QEMU
//! and the image; software emulation boots in a few seconds on a quiet machine, so nothing here asserts on time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use peerpods_test_require::Need;
use peerpods_tests::daemon::{Daemon, image, image_that_does_not_boot, text, with_vms};
use peerpods_tests::node::output;

#[test]
fn a_command_runs_in_a_real_vm_and_nothing_is_left() {
    with_vms("a_command_runs_in_a_real_vm_and_nothing_is_left", &[], || {
        let daemon = Daemon::start(image());
        let script = "cat /proc/sys/kernel/random/boot_id; cat /sys/class/net/eth0/address; echo to-stderr >&2; exit 7";
        let ran =
            daemon.peerpods(&["sandbox", "run", "--pod-network", "10.155.0.0/24", "--", "sh", "-c", script]);
        let ran = { ran }.output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert_eq!(ran.status.code(), Some(7), "{}\n{}", text(&ran), daemon.log());
        let mut lines = stdout.lines();
        let boot_id = lines.next().unwrap();
        assert_eq!(boot_id.len(), 36, "{stdout}");
        assert_ne!(boot_id, std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim());
        assert_eq!(lines.next().unwrap().len(), 17, "a MAC address: {stdout}");
        assert!(stderr.contains("to-stderr") && !stdout.contains("to-stderr"), "{}", text(&ran));
        assert!(stderr.contains("agent answered"), "the table of phases: {stderr}");
        daemon.assert_nothing_left();
    });
}

#[test]
fn the_pods_address_and_mac_are_in_the_vm_and_answer_from_the_node() {
    with_vms("the_pods_address_and_mac_are_in_the_vm_and_answer_from_the_node", &[], || {
        let daemon = Daemon::start(image());
        let net = daemon.id("net");
        let network = ["--pod-network", "10.155.1.0/24"];
        drop(daemon.succeed(&[&["sandbox", "create", "--id", &net][..], &network].concat()));
        drop(daemon.succeed(&["sandbox", "start", &net, "--quiet"]));
        let seen = daemon.succeed(&[
            "sandbox",
            "exec",
            &net,
            "--",
            "sh",
            "-c",
            "ip -o addr show eth0; ip link show eth0",
        ]);
        assert!(seen.contains("10.155.1.2/24"), "{seen}");
        let netns = json_text(&daemon.succeed(&["sandbox", "list", "--output", "json"]), "netns");
        // Not from /sys, which shows the namespace it was mounted in.
        let pod = output("nsenter", &[&format!("--net={netns}"), "ip", "-j", "link", "show", "dev", "eth0"]);
        let mac = json_text(&pod, "address");
        assert!(seen.contains(&mac), "{seen} has not the pod's MAC {mac}");
        let ping = output("ping", &["-c", "3", "-i", "0.2", "-W", "5", "10.155.1.2"]);
        assert!(ping.contains("3 received"), "{ping}");
        drop(daemon.succeed(&["sandbox", "stop", &net]));
        daemon.assert_nothing_left();
    });
}

#[test]
fn a_pod_in_a_real_vm_is_guarded_and_refused_what_is_not_its_own() {
    const TEST: &str = "a_pod_in_a_real_vm_is_guarded_and_refused_what_is_not_its_own";
    with_vms(TEST, &[Need::Program("nft")], || {
        let daemon = Daemon::start(image());
        let guarded = daemon.id("guarded");
        drop(daemon.succeed(&["sandbox", "create", "--id", &guarded, "--pod-network", "10.155.6.0/24"]));
        drop(daemon.succeed(&["sandbox", "start", &guarded, "--quiet"]));
        assert!(output("nft", &["list", "tables"]).contains("peerpods"), "{}", daemon.log());
        let table = output("nft", &["list", "table", "inet", "peerpods"]);
        assert!(table.contains("VNI ") && table.contains("notrack"), "{table}");
        let listed = daemon.succeed(&["sandbox", "list", "--output", "json"]);
        let console = std::fs::read_to_string(json_text(&listed, "console")).unwrap();
        assert!(!console.contains("unguarded"), "the image's kernel has nf_tables: {console}");
        // Not by wget: a static busybox dies of naming the address it could not reach.
        let tries = "for a in 169.254.169.254 168.63.129.16; do ip route get $a 2>&1; done; true";
        let seen = daemon.succeed(&["sandbox", "exec", &guarded, "--", "sh", "-c", tries]);
        assert_eq!(seen.matches("Permission denied").count(), 2, "{seen}");
        drop(daemon.succeed(&["sandbox", "stop", &guarded]));
        daemon.assert_nothing_left();
        assert_eq!(output("nft", &["list", "tables"]), "");
    });
}

#[test]
fn kill_9_of_the_service_does_not_interrupt_a_streaming_command() {
    with_vms("kill_9_of_the_service_does_not_interrupt_a_streaming_command", &[], || {
        let mut daemon = Daemon::start(image());
        let stream = daemon.id("stream");
        drop(daemon.succeed(&["sandbox", "create", "--id", &stream, "--pod-network", "10.155.2.0/24"]));
        drop(daemon.succeed(&["sandbox", "start", &stream, "--quiet"]));
        let count = "i=0; while [ $i -lt 60 ]; do echo $i; i=$((i+1)); sleep 0.1; done";
        let mut exec = daemon
            .peerpods(&["sandbox", "exec", &stream, "--no-stdin", "--", "sh", "-c", count])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(exec.stdout.take().unwrap()).lines();
        for (expected, line) in lines.enumerate() {
            assert_eq!(line.unwrap(), expected.to_string(), "a gap in the stream");
            match expected {
                15 => {
                    daemon.kill_9();
                    daemon.configure("peerpods-limit-per-node = 1");
                }
                40 => daemon.boot(),
                _ => {}
            }
        }
        assert!(exec.wait().unwrap().success());
        let listed = daemon.succeed(&["sandbox", "list", "--output", "json"]);
        assert_eq!(json_text(&listed, "state"), "running", "{listed}");
        assert_eq!(daemon.succeed(&["sandbox", "exec", &stream, "--", "echo", "still here"]), "still here\n");
        let late = daemon.id("late");
        let refused = daemon.fail(&["sandbox", "create", "--id", &late, "--pod-network", "10.155.9.0/24"]);
        assert!(refused.contains("PEERPODS_LIMIT_PER_NODE") && refused.contains("(stream-"), "{refused}");
        drop(daemon.succeed(&["sandbox", "stop", &stream]));
        daemon.assert_nothing_left();
    });
}

#[test]
fn an_image_that_does_not_boot_is_told_with_its_last_words() {
    with_vms("an_image_that_does_not_boot_is_told_with_its_last_words", &[], || {
        let dir = tempfile::tempdir().unwrap();
        image_that_does_not_boot(&image(), dir.path());
        let daemon = Daemon::start(dir.path().to_owned());
        let broken = daemon.id("broken");
        drop(daemon.succeed(&["sandbox", "create", "--id", &broken, "--pod-network", "10.155.3.0/24"]));
        let error = daemon.fail(&["sandbox", "start", &broken, "--quiet"]);
        assert!(error.contains("stopped by itself"), "{error}");
        assert!(error.contains("Kernel panic"), "the console's last words: {error}");
        drop(daemon.succeed(&["sandbox", "stop", &broken]));
        daemon.assert_nothing_left();
    });
}

#[test]
fn ctrl_c_while_the_vm_boots_leaves_nothing() {
    with_vms("ctrl_c_while_the_vm_boots_leaves_nothing", &[], || {
        let daemon = Daemon::start(image());
        let mut run = daemon
            .peerpods(&["sandbox", "run", "--pod-network", "10.155.4.0/24", "--", "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while peerpods_tests::node::output("ip", &["-o", "link"])
            .lines()
            .filter(|l| l.contains("ppt"))
            .count()
            == 0
        {
            assert!(run.try_wait().unwrap().is_none(), "the run ended early");
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(Command::new("kill").args(["-INT", &run.id().to_string()]).output());
        assert!(!run.wait().unwrap().success());
        daemon.assert_nothing_left();
    });
}

fn json_text(json: &str, key: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    let list =
        value.as_array().cloned().or_else(|| value.get("sandboxes").and_then(|s| s.as_array().cloned()));
    let first = list.and_then(|l| l.first().cloned()).unwrap();
    first.get(key).and_then(|v| v.as_str()).unwrap().to_owned()
}
