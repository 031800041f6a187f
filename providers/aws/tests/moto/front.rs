//! What stands before moto so that it is like AWS: client tokens, tags of network interfaces, repeated termination, instances that are
//! not shown yet, the buckets of `RunInstances`. And what a test wants to go wrong.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::beyond::{self, Beyond};
use crate::buckets::Buckets;
use crate::form::{self, Parameters};

/// What a test wants to happen to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// AWS refuses with this status and code.
    Refuse(u16, &'static str),
    /// AWS denies this action, and names it.
    Deny(&'static str),
    /// The call does its work and its answer is lost.
    LoseAnswer,
    /// The connection breaks before anything is done.
    LoseRequest,
}

/// What the proxy does with a call.
pub(crate) enum Decision {
    /// Moto is asked.
    Forward,
    /// Moto is asked, and the connection ends without an answer.
    ForwardAndLose,
    /// The connection ends.
    Lose,
    /// This is the answer.
    Answer(u16, String),
}

struct Launched {
    parameters: Parameters,
    answer: String,
    instance: String,
}

#[derive(Default)]
pub(crate) struct Front {
    /// Every call, in order: action and parameters.
    pub(crate) calls: Vec<(String, Parameters)>,
    /// What is to go wrong: for the next call of an action.
    pub(crate) faults: Vec<(&'static str, Fault)>,
    /// For how long a new instance is not shown.
    pub(crate) hidden_for: Duration,
    /// The buckets of `RunInstances`; without, it is never throttled.
    pub(crate) buckets: Option<Buckets>,
    /// There is no capacity for these types, ever.
    pub(crate) exhausted: Vec<&'static str>,
    /// Instances are not moto's but made up here, which takes no time: for bursts that moto is too slow for.
    pub(crate) makes_up_instances: bool,
    /// How long a `RunInstances` takes until it is answered.
    pub(crate) launch_takes: Duration,
    /// What moto does not have.
    pub(crate) beyond: Beyond,
    launched: HashMap<String, Launched>,
    born: HashMap<String, Instant>,
    terminated: HashSet<String>,
}

impl Front {
    /// Notes a call and says what becomes of it.
    pub(crate) fn decide(&mut self, action: &str, parameters: &Parameters) -> Decision {
        self.calls.push((action.to_owned(), parameters.clone()));
        if let Some(place) = self.faults.iter().position(|(of, _)| *of == action) {
            match self.faults.remove(place).1 {
                Fault::Refuse(status, code) if beyond::is_json(action) => {
                    return beyond::json_error(status, code);
                }
                Fault::Refuse(status, code) => return self.refuse(status, code),
                Fault::Deny(denied) => {
                    return Decision::Answer(
                        403,
                        form::error("UnauthorizedOperation", &beyond::denial(denied), "req-denied"),
                    );
                }
                Fault::LoseRequest => return Decision::Lose,
                Fault::LoseAnswer => {
                    return match self.as_aws_does(action, parameters) {
                        Decision::Forward => Decision::ForwardAndLose,
                        _ => Decision::Lose,
                    };
                }
            }
        }
        self.as_aws_does(action, parameters)
    }

    fn as_aws_does(&mut self, action: &str, parameters: &Parameters) -> Decision {
        match action {
            "RunInstances" => self.run(parameters),
            "TerminateInstances" => self.terminate(parameters),
            _ => self.beyond.answer(action, parameters).unwrap_or(Decision::Forward),
        }
    }

    fn refuse(&self, status: u16, code: &str) -> Decision {
        Decision::Answer(
            status,
            form::error(code, &format!("injected {code}"), &format!("req-{}", self.calls.len())),
        )
    }

    fn run(&mut self, parameters: &Parameters) -> Decision {
        let asked = parameters.get("MaxCount").and_then(|count| count.parse().ok()).unwrap_or(1);
        if self.buckets.as_mut().is_some_and(|buckets| !buckets.let_through(asked, Instant::now())) {
            return self.refuse(503, "RequestLimitExceeded");
        }
        let kind = parameters.get("InstanceType").map(String::as_str);
        if self.exhausted.iter().any(|none| Some(*none) == kind) {
            return self.refuse(500, "InsufficientInstanceCapacity");
        }
        match self.repeated(parameters) {
            Decision::Forward if self.makes_up_instances => {
                let xml = made_up(self.launched.len());
                self.correct("RunInstances", parameters, 200, xml.clone());
                Decision::Answer(200, xml)
            }
            decision => decision,
        }
    }

    /// The same token is the same instance; with other parameters it is an error, and so it is when the instance is terminated.
    fn repeated(&self, parameters: &Parameters) -> Decision {
        let Some(before) = parameters.get("ClientToken").and_then(|token| self.launched.get(token)) else {
            return Decision::Forward;
        };
        if before.parameters != *parameters {
            return self.refuse(400, "IdempotentParameterMismatch");
        }
        match self.terminated.contains(&before.instance) {
            true => self.refuse(400, "IdempotentInstanceTerminated"),
            false => Decision::Answer(200, before.answer.clone()),
        }
    }

    fn terminate(&self, parameters: &Parameters) -> Decision {
        let ids = form::list(parameters, "InstanceId");
        if ids.iter().any(|id| self.is_hidden(id)) {
            return self.refuse(400, "InvalidInstanceID.NotFound");
        }
        if ids.iter().all(|id| self.terminated.contains(id)) {
            let item = |id: &String| {
                format!(
                    "<item><instanceId>{id}</instanceId><currentState><code>48</code><name>terminated</name></currentState>\
                     <previousState><code>48</code><name>terminated</name></previousState></item>"
                )
            };
            let items: String = ids.iter().map(item).collect();
            return Decision::Answer(
                200,
                format!(
                    "<TerminateInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId>\
                     <instancesSet>{items}</instancesSet></TerminateInstancesResponse>"
                ),
            );
        }
        Decision::Forward
    }

    /// Notes what moto did; answers the answer as AWS would give it, and what has to be done at moto to make it so.
    pub(crate) fn correct(
        &mut self,
        action: &str,
        parameters: &Parameters,
        status: u16,
        xml: String,
    ) -> (String, Option<Parameters>) {
        match action {
            "RunInstances" if status == 200 => {
                let instance = form::texts(&xml, "instanceId").pop().unwrap_or_default();
                self.born.insert(instance.clone(), Instant::now());
                if let Some(token) = parameters.get("ClientToken") {
                    let launched = Launched { parameters: parameters.clone(), answer: xml.clone(), instance };
                    self.launched.insert(token.clone(), launched);
                }
                let tags = interface_tags(parameters, &xml);
                (xml, tags)
            }
            "TerminateInstances" if status == 200 => {
                self.terminated.extend(form::list(parameters, "InstanceId"));
                (xml, None)
            }
            "DescribeInstances" => {
                let hidden: Vec<String> = self.born.keys().filter(|id| self.is_hidden(id)).cloned().collect();
                (self.beyond.reason(form::without(&xml, &hidden)), None)
            }
            _ => (xml, None),
        }
    }

    fn is_hidden(&self, id: &str) -> bool {
        self.born.get(id).is_some_and(|born| born.elapsed() < self.hidden_for)
    }
}

/// The answer with a new instance that only the front knows.
fn made_up(number: usize) -> String {
    let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number).unwrap());
    format!(
        "<RunInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId>\
         <reservationId>r-{number:08x}</reservationId><instancesSet><item><instanceId>i-{number:017x}</instanceId>\
         <instanceState><code>0</code><name>pending</name></instanceState><privateIpAddress>{address}</privateIpAddress>\
         </item></instancesSet></RunInstancesResponse>"
    )
}

/// The call that gives the new interfaces their tags, which moto forgets.
fn interface_tags(parameters: &Parameters, xml: &str) -> Option<Parameters> {
    let of_interface = parameters
        .iter()
        .find(|(key, value)| key.ends_with(".ResourceType") && *value == "network-interface");
    let prefix = of_interface?.0.trim_end_matches("ResourceType").to_owned() + "Tag.";
    let mut call = Parameters::from([
        ("Action".to_owned(), "CreateTags".to_owned()),
        ("Version".to_owned(), "2016-11-15".to_owned()),
    ]);
    for (number, id) in form::texts(xml, "networkInterfaceId").into_iter().enumerate() {
        call.insert(format!("ResourceId.{}", number + 1), id);
    }
    for (key, value) in parameters {
        if let Some(rest) = key.strip_prefix(&prefix) {
            call.insert(format!("Tag.{rest}"), value.clone());
        }
    }
    Some(call)
}
