//! The life of the table that decides who can send into a tunnel: what it holds, what is left of it, and what puts it back.

use std::time::Duration;

use peerpods_podnet::{GuestTunnel, LaidTunnel, Tunnel, TunnelSpec, VxlanTunnel, pod_netns};

use crate::bed::{Bed, NODE_IP, PORT, Pod, VM_IP, inside, ping};
use crate::guard::{VNI, can, nft, table};

fn has_table(netns: &str) -> bool {
    nft(netns, &["list", "tables"]).contains("peerpods")
}

/// Leaves something in the table that does not survive when it is built anew.
fn mark(netns: &str) {
    nft(netns, &["add", "set", "inet", "peerpods", "witness", "{ type mark; }"]);
}

fn is_marked(netns: &str) -> bool {
    table(netns).contains("set witness")
}

#[test]
fn each_tunnel_takes_its_own_with_it_and_the_last_the_table() {
    if !can("each_tunnel_takes_its_own_with_it_and_the_last_the_table") {
        return;
    }
    let bed = Bed::new();
    let (one, two) = (bed.pod(5, VNI), bed.pod(6, VNI + 1));
    nft(&bed.worker.0, &["add", "table", "inet", "calico"]);
    let bare = nft(&bed.worker.0, &["list", "ruleset"]);
    one.setup();
    let with_one = table(&bed.worker.0);
    two.setup();
    let with_both = table(&bed.worker.0);
    for pod in [&one, &two] {
        let element = format!(
            "{VM_IP} . {PORT} . {:#x} comment \"VNI {}, pod {}\"",
            pod.spec.vni,
            pod.spec.vni,
            pod.netns.path.display()
        );
        assert!(with_both.contains(&element), "{element} in {with_both}");
    }
    mark(&bed.worker.0);
    let marked = table(&bed.worker.0);
    one.setup();
    two.setup_worker().unwrap();
    assert_eq!(table(&bed.worker.0), marked, "set twice");
    nft(&bed.worker.0, &["delete", "set", "inet", "peerpods", "witness"]);
    assert_eq!(table(&bed.worker.0), with_both, "set twice");
    two.teardown_worker().unwrap();
    assert_eq!(uncounted(&table(&bed.worker.0)), uncounted(&with_one));
    two.teardown_worker().unwrap();
    assert!(one.vm_answers());
    one.teardown_worker().unwrap();
    assert_eq!(nft(&bed.worker.0, &["list", "ruleset"]), bare);
    assert!(has_table(&bed.vm.0));
    one.teardown_guest().unwrap();
    two.teardown_guest().unwrap();
    assert!(!has_table(&bed.vm.0));
    one.teardown_guest().unwrap();
}

fn uncounted(table: &str) -> String {
    let words = table.split(' ').map(|w| if w.chars().all(|c| c.is_ascii_digit()) { "N" } else { w });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_pods_namespace_that_goes_first_leaves_nothing() {
    if !can("a_pods_namespace_that_goes_first_leaves_nothing") {
        return;
    }
    let bed = Bed::new();
    let (one, two) = (bed.pod(5, VNI), bed.pod(6, VNI + 1));
    one.setup_worker().unwrap();
    inside(&bed.worker.0, || async { pod_netns::remove(&one.netns.name).await.unwrap() });
    assert!(table(&bed.worker.0).contains("VNI 555000"));
    one.teardown_worker().unwrap();
    assert!(!has_table(&bed.worker.0), "its own teardown");

    two.setup_worker().unwrap();
    inside(&bed.worker.0, || async { VxlanTunnel::new().collect().await.unwrap() });
    assert!(has_table(&bed.worker.0), "a living pod's is not collected");
    inside(&bed.worker.0, || async { pod_netns::remove(&two.netns.name).await.unwrap() });
    inside(&bed.worker.0, || async { VxlanTunnel::new().collect().await.unwrap() });
    assert!(!has_table(&bed.worker.0), "nobody tore it down");
}

#[test]
fn a_table_that_somebody_damaged_is_whole_after_the_next_setup() {
    if !can("a_table_that_somebody_damaged_is_whole_after_the_next_setup") {
        return;
    }
    let bed = Bed::new();
    let (one, two) = (bed.pod(5, VNI), bed.pod(6, VNI + 1));
    one.setup();
    two.setup();
    let whole = uncounted(&table(&bed.worker.0));
    let damages: [&[&str]; 4] = [
        &["flush", "chain", "inet", "peerpods", "input"],
        &["flush", "set", "inet", "peerpods", "tunnels"],
        &["flush", "set", "inet", "peerpods", "ports"],
        &["add", "rule", "inet", "peerpods", "output", "drop"],
    ];
    for damage in damages {
        nft(&bed.worker.0, damage);
        assert_ne!(uncounted(&table(&bed.worker.0)), whole);
        one.setup_worker().unwrap();
        assert_eq!(uncounted(&table(&bed.worker.0)), whole, "{damage:?}");
    }
    nft(&bed.worker.0, &["flush", "ruleset"]);
    one.setup_worker().unwrap();
    two.setup_worker().unwrap();
    assert_eq!(uncounted(&table(&bed.worker.0)), whole);
    assert!(one.vm_answers() && two.vm_answers() && ping(&one.podns.0, NODE_IP, &[]));
}

#[test]
fn a_ruleset_that_was_flushed_guards_all_tunnels_again_in_one_look() {
    if !can("a_ruleset_that_was_flushed_guards_all_tunnels_again_in_one_look") {
        return;
    }
    let bed = Bed::new();
    let (one, two) = (bed.pod(5, VNI), bed.pod(6, VNI + 1));
    one.setup();
    two.setup();
    let laid = || {
        let of = |pod: &Pod| LaidTunnel { netns: pod.netns.path.clone(), spec: pod.spec.clone() };
        vec![of(&one), of(&two)]
    };
    let keep = || {
        inside(&bed.worker.0, || async { VxlanTunnel::new().keep(&laid).await.unwrap() });
        for pod in [&one, &two] {
            let (guest, network) = (GuestTunnel { podns: pod.podns.path() }, pod.network());
            inside(&bed.vm.0, || async { guest.keep(&network).await.unwrap() });
        }
    };
    for home in [&bed.worker.0, &bed.vm.0] {
        let whole = uncounted(&table(home));
        for damage in [&["flush", "ruleset"][..], &["flush", "set", "inet", "peerpods", "peers4"]] {
            nft(home, damage);
            keep();
            assert_eq!(uncounted(&table(home)), whole, "{home} {damage:?}");
        }
    }
    assert!(one.vm_answers() && two.vm_answers());
    for home in [&bed.worker.0, &bed.vm.0] {
        mark(home);
    }
    keep();
    for home in [&bed.worker.0, &bed.vm.0] {
        assert!(is_marked(home), "{home}: a whole one is left alone");
    }
    inside(&bed.worker.0, || async { VxlanTunnel::new().keep(&Vec::new).await.unwrap() });
    assert!(has_table(&bed.worker.0), "what is not named is not withdrawn");
}

#[test]
fn a_change_whose_caller_went_away_is_not_done_after_a_later_one() {
    if !can("a_change_whose_caller_went_away_is_not_done_after_a_later_one") {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, VNI);
    let laid = || vec![LaidTunnel { netns: pod.netns.path.clone(), spec: pod.spec.clone() }];
    inside(&bed.worker.0, || async {
        let tunnel = VxlanTunnel::new();
        for patience in 0..20 {
            // Dropped somewhere in the middle: the thread that changes the table does not know.
            let kept = tokio::time::timeout(Duration::from_micros(100 * patience), tunnel.keep(&laid)).await;
            drop(kept);
            tunnel.teardown(&pod.netns.path, &pod.spec).await.unwrap();
            assert!(!has_table(&bed.worker.0), "after {patience}");
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(!has_table(&bed.worker.0), "long after {patience}");
        }
    });
}

#[test]
fn many_tunnels_at_once_lose_none_of_each_other() {
    if !can("many_tunnels_at_once_lose_none_of_each_other") {
        return;
    }
    let bed = Bed::new();
    let pods: Vec<Pod> = (0..8).map(|n| bed.pod(10 + n, VNI + u32::from(n))).collect();
    inside(&bed.worker.0, || async {
        let all =
            pods.iter().map(|pod| async move { VxlanTunnel::new().setup(&pod.netns.path, &pod.spec).await });
        for done in futures::future::join_all(all).await {
            done.unwrap();
        }
    });
    let shown = table(&bed.worker.0);
    for pod in &pods {
        assert_eq!(shown.matches(&format!("\"VNI {},", pod.spec.vni)).count(), 1, "{shown}");
    }
    inside(&bed.worker.0, || async {
        let all = pods
            .iter()
            .map(|pod| async move { VxlanTunnel::new().teardown(&pod.netns.path, &pod.spec).await });
        for done in futures::future::join_all(all).await {
            done.unwrap();
        }
    });
    assert!(!has_table(&bed.worker.0));
}

#[test]
fn a_change_among_a_thousand_tunnels_leaves_the_table_and_the_others_alone() {
    if !can("a_change_among_a_thousand_tunnels_leaves_the_table_and_the_others_alone") {
        return;
    }
    let bed = Bed::new();
    let pod = bed.pod(5, VNI);
    let laid = || -> Vec<LaidTunnel> {
        let of = |n| {
            let spec = TunnelSpec { vni: VNI + 1 + n, ..pod.spec.clone() };
            LaidTunnel { netns: pod.netns.path.clone(), spec }
        };
        (0..1000).map(of).collect()
    };
    inside(&bed.worker.0, || async { VxlanTunnel::new().keep(&laid).await.unwrap() });
    mark(&bed.worker.0);
    let elements =
        || nft(&bed.worker.0, &["list", "set", "inet", "peerpods", "peers4"]).matches("VNI").count();
    for round in 0..5 {
        pod.setup_worker().unwrap();
        assert_eq!(elements(), 1001, "{round}");
        pod.teardown_worker().unwrap();
        assert_eq!(elements(), 1000, "{round}");
    }
    assert!(is_marked(&bed.worker.0), "the table was built anew");
}
