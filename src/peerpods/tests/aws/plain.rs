//! A life that nobody disturbs: what is made, what it carries, who finds it, what is left.

use peerpods_test_require::require;
use serde_json::Value;

use crate::form;
use crate::lives::{assert_nothing_left, needs};
use crate::node::{Instances, Node, Plan};
use crate::server;

#[test]
fn one_sandbox_is_one_instance_that_is_tagged_found_and_ended() {
    if !require("one_sandbox_is_one_instance_that_is_tagged_found_and_ended", &needs()) {
        return;
    }
    let moto = server::address();
    if let Err(panic) = std::thread::spawn(move || life(&mut node(moto))).join() {
        std::panic::resume_unwind(panic);
    }
}

fn node(moto: std::net::SocketAddr) -> Node {
    let mut node =
        Node::new(moto, &Plan { name: "plain".to_owned(), strikes: Vec::new(), instances: Instances::Shown });
    node.boot();
    node
}

fn life(node: &mut Node) {
    let sandbox = node.sandbox.clone();
    let run = node.run(&["--keep"]);
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&run.stdout), "up\n", "{said}\n{}", node.log());
    let living: Vec<String> = node.ask(node.far.living()).into_iter().collect();
    let [instance] = living.as_slice() else { panic!("not one instance: {living:?}") };
    assert_tagged(node);

    let listed = answer(node, &["--output", "json", "sandbox", "list"]);
    assert_eq!(found(&listed, "id", &sandbox)["vm_id"], instance.as_str(), "{listed}");
    let vms = answer(node, &["--output", "json", "gc", "list"]);
    let vm = found(&vms, "id", instance);
    assert_eq!((&vm["sandbox"], &vm["verdict"]), (&sandbox.as_str().into(), &"live".into()), "{vms}");

    node.succeed(&["sandbox", "stop", &sandbox]);
    assert!(node.ask(node.far.living()).is_empty(), "{}", node.log());
    let volumes = node.ask(node.far.describe("DescribeVolumes", &[]));
    assert_eq!(form::texts(&volumes, "volumeId"), Vec::<String>::new());
    let calls = node.far.calls();
    for action in ["RunInstances", "TerminateInstances"] {
        assert_eq!(calls.iter().filter(|call| *call == action).count(), 1, "{calls:?}");
    }
    assert_nothing_left(node);
}

/// Instance, volume and interface say whose they are.
fn assert_tagged(node: &Node) {
    let name = format!("podvm-sandbox-{}", &node.sandbox[..8]);
    for action in ["DescribeInstances", "DescribeVolumes", "DescribeNetworkInterfaces"] {
        let xml = node.ask(node.far.describe(action, &[]));
        let pairs: Vec<(String, String)> =
            form::texts(&xml, "key").into_iter().zip(form::texts(&xml, "value")).collect();
        let host = peerpods_hypervisor::config::host_name();
        for (key, value) in [
            ("io.peerpods.managed", "true"),
            ("io.peerpods.sandbox", node.sandbox.as_str()),
            ("namespace", "default"),
            ("node", &host),
            ("cost-centre", "4711"),
        ] {
            let pair = (key.to_owned(), value.to_owned());
            assert!(pairs.contains(&pair), "{action} lacks {key}={value}: {pairs:?}");
        }
        let named = pairs.iter().any(|(key, value)| key == "Name" && value.starts_with(&name));
        assert!(named, "{action} is not called {name}…: {pairs:?}");
    }
}

fn answer(node: &mut Node, arguments: &[&str]) -> Value {
    serde_json::from_str(&node.succeed(arguments)).unwrap()
}

/// The one of a list, or of a list in the answer, whose field has a value.
fn found<'a>(answer: &'a Value, field: &str, value: &str) -> &'a Value {
    let lists = answer
        .as_array()
        .into_iter()
        .chain(answer.as_object().into_iter().flat_map(|o| o.values().filter_map(Value::as_array)));
    lists
        .flatten()
        .find(|one| one[field] == value)
        .unwrap_or_else(|| panic!("no {field} {value} in {answer}"))
}
