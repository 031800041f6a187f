//! Upstream's bugs that are about what is placed in a cluster, as tests on everything that is. The others' tests are beside the decisions
//! they are about, by the same names, `b1_` to `b22_`. B15 is about must-gather, which this operator has none of yet.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::deploy::files;
use crate::kataconfig::build::{MonitoredHost, NodeFiles, installer, monitor, remover, webhook};
use crate::kataconfig::pools::Target;
use crate::names;
use crate::peerpodconfig::daemon_set::{Parts, daemon_set};
use crate::settings::Settings;
use crate::webhook::certificates::Source;
use crate::webhook::configuration::{MatchConditions, Setup};
use crate::webhook::pods;

/// Every object that is in `deploy/` or that the operator makes with pods in it or in front of them.
fn placed() -> Vec<Value> {
    let (settings, classes) = (Settings::default(), ["kata-remote-cc".to_owned()]);
    let setup = Setup {
        namespace: names::NAMESPACE.to_owned(),
        image: "image:1".to_owned(),
        pods: pods::Settings::default(),
        source: Source::Own,
        match_conditions: MatchConditions::Supported,
        user: None,
    };
    let service = daemon_set(&Parts {
        namespace: names::NAMESPACE,
        image: "image:1",
        node_selector: &BTreeMap::new(),
        secret: "peer-pods-secret",
        config_map: "peer-pods-cm",
        limit: 10,
        digest: "d",
    });
    let files_of_nodes = NodeFiles { classes: &classes, log_level: Some("debug") };
    let mut made = webhook(&setup);
    made.extend([service, installer(&settings, files_of_nodes), remover(&settings)]);
    made.push(monitor(Target::Workers, names::NAMESPACE, "image:1", MonitoredHost::OpenShift));
    let deployed = files::all().into_iter().flat_map(|file| file.objects);
    deployed.chain(made.iter().map(|desired| desired.whole())).collect()
}

fn of_kind<'a>(all: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    all.iter().filter(move |object| object["kind"] == kind)
}

fn workloads(all: &[Value]) -> impl Iterator<Item = &Value> {
    ["Deployment", "DaemonSet"].into_iter().flat_map(|kind| of_kind(all, kind))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn containers(workload: &Value) -> impl Iterator<Item = &Value> {
    let spec = &workload["spec"]["template"]["spec"];
    list(&spec["initContainers"]).iter().chain(list(&spec["containers"]))
}

fn words(container: &Value) -> impl Iterator<Item = &str> {
    list(&container["command"]).iter().chain(list(&container["args"])).filter_map(Value::as_str)
}

/// Whether an object's labels are what a selector asks for.
fn selects(selector: &Value, labels: &Value) -> bool {
    selector
        .as_object()
        .is_some_and(|wanted| !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value))
}

#[test]
fn b8_no_argument_has_blanks_around_it() {
    let all = placed();
    let mut seen = 0;
    for word in workloads(&all).flat_map(containers).flat_map(words) {
        assert_eq!(word, word.trim());
        seen += 1;
    }
    assert!(seen > 10, "{seen} words");
}

#[test]
fn b21_nothing_is_said_twice() {
    let all = placed();
    for container in workloads(&all).flat_map(containers) {
        let flags = words(container).filter(|word| word.starts_with("--"));
        let flags = flags.map(|word| word.split('=').next().unwrap_or_default());
        let named = |field: &str, key: &str| -> Vec<String> {
            list(&container[field]).iter().filter_map(|one| one[key].as_str()).map(str::to_owned).collect()
        };
        let told =
            [flags.map(str::to_owned).collect(), named("env", "name"), named("volumeMounts", "mountPath")];
        for mut names in told {
            let all = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), all, "{container}");
        }
    }
}

#[test]
fn b14_what_is_scraped_or_called_is_a_port_that_is_there() {
    let all = placed();
    for service in of_kind(&all, "Service") {
        let selector = &service["spec"]["selector"];
        let pods: Vec<_> = workloads(&all)
            .filter(|one| selects(selector, &one["spec"]["template"]["metadata"]["labels"]))
            .collect();
        assert!(!pods.is_empty(), "nothing is behind {service}");
        for port in list(&service["spec"]["ports"]) {
            let target = &port["targetPort"];
            let ports = pods.iter().flat_map(|pod| containers(pod)).flat_map(|one| list(&one["ports"]));
            let is_target = |one: &&Value| one["name"] == *target || one["containerPort"] == *target;
            assert!(ports.into_iter().any(|one| is_target(&one)), "{target} of {service}");
        }
    }
    for monitor in of_kind(&all, "PodMonitor") {
        let wanted = &monitor["spec"]["selector"]["matchLabels"];
        let pods =
            workloads(&all).filter(|one| selects(wanted, &one["spec"]["template"]["metadata"]["labels"]));
        let ports: Vec<_> = pods.flat_map(containers).flat_map(|one| list(&one["ports"])).collect();
        for endpoint in list(&monitor["spec"]["podMetricsEndpoints"]) {
            assert!(ports.iter().any(|port| port["name"] == endpoint["port"]), "{monitor}");
        }
    }
    let monitors: Vec<_> = of_kind(&all, "ServiceMonitor").collect();
    assert_eq!(monitors.len(), 2);
    for monitor in monitors {
        let wanted = &monitor["spec"]["selector"]["matchLabels"];
        let service = of_kind(&all, "Service").find(|one| selects(wanted, &one["metadata"]["labels"]));
        let ports = list(&service.unwrap_or_else(|| panic!("{monitor}"))["spec"]["ports"]);
        for endpoint in list(&monitor["spec"]["endpoints"]) {
            assert!(ports.iter().any(|port| port["name"] == endpoint["port"]), "{monitor}");
        }
    }
}

#[test]
fn b19_pods_of_others_do_not_wait_for_us_and_we_are_there_twice() {
    let all = placed();
    let pods = of_kind(&all, "MutatingWebhookConfiguration").next().unwrap();
    for webhook in list(&pods["webhooks"]) {
        assert!(!list(&webhook["matchConditions"]).is_empty(), "only pods of our classes");
        assert!(
            !list(&webhook["namespaceSelector"]["matchExpressions"]).is_empty(),
            "not those of the cluster"
        );
    }
    for deployment in of_kind(&all, "Deployment") {
        let name = &deployment["metadata"]["name"];
        assert_eq!(deployment["spec"]["replicas"], 2, "{name}");
        for probe in ["readinessProbe", "livenessProbe"] {
            assert!(containers(deployment).all(|one| one[probe].is_object()), "{name} {probe}");
        }
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        let budgets = of_kind(&all, "PodDisruptionBudget");
        let mut own = budgets.filter(|one| selects(&one["spec"]["selector"]["matchLabels"], labels));
        assert!(own.next().is_some_and(|budget| budget["spec"]["maxUnavailable"] == json!(1)), "{name}");
    }
}
