//! What the API server asks: about pods (the role `webhook`), about our own objects (the role `operator`), or both at one port.

use std::sync::Arc;

use futures::FutureExt as _;
use kube::Client;
use peerpods_operator::webhook::certificates::keeper::Place;
use peerpods_operator::webhook::role::Role as Server;
use peerpods_operator::webhook::server::{Limits, Question, Webhooks, took};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Prepared, RoleError};
use crate::config::{Role, Settings};
use crate::health::{Check, Counts};

/// Prepares it, where one of the roles needs it.
pub(super) fn prepare(
    settings: &Settings,
    roles: &[Role],
    client: &Client,
    stop: CancellationToken,
    registry: &mut Registry,
) -> Result<Option<Prepared>, RoleError> {
    let operator = &settings.operator;
    let place = |of: fn(&str, _) -> Place| of(&operator.controllers.namespace, operator.certificate.clone());
    let mut places = Vec::new();
    if roles.contains(&Role::Operator) {
        places.push(place(Place::of_operator));
    }
    if roles.contains(&Role::Webhook) {
        places.push(place(Place::of_pods));
    }
    let mut places = places.into_iter();
    let Some(first) = places.next() else { return Ok(None) };
    let server = Server::of(client, first, places.collect(), operator.pods.clone(), Limits::default())?;
    let (webhooks, looked_at) = (server.webhooks(), server.webhooks());
    registry.register_collector(Box::new(Answers(webhooks)));
    let checks = vec![Check::new("webhook", Counts::Ready, move || looked_at.ready())];
    let address = operator.webhook_address;
    let running = async move {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| RoleError::Listen { address, source })?;
        Ok(server.run(listener, stop).await?)
    };
    Ok(Some(Prepared { running: running.boxed(), checks }))
}

/// How questions were answered, as Prometheus reads it.
struct Answers(Arc<Webhooks>);

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Answers").field(self.0.counts()).finish()
    }
}

const QUESTIONS: [(&str, Question); 3] = [
    ("pod", Question::Pod),
    ("kataconfig", Question::KataConfig),
    ("peerpodconfig", Question::PeerPodConfig),
];

impl Collector for Answers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        use std::sync::atomic::Ordering::Relaxed;
        let counts = self.0.counts();
        let mut answers = encoder.encode_descriptor(
            "peerpods_webhook_answers",
            "Questions of the API server, by how they were answered",
            None,
            MetricType::Counter,
        )?;
        let by_answer = [
            ("allowed", &counts.allowed),
            ("patched", &counts.patched),
            ("refused", &counts.refused),
            ("malformed", &counts.malformed),
        ];
        for (answer, count) in by_answer {
            let labels = [("answer", answer)];
            ConstCounter::new(count.load(Relaxed)).encode(answers.encode_family(&labels)?)?;
        }
        let mut took = encoder.encode_descriptor(
            "peerpods_webhook_answer_seconds",
            "From the last byte of a question until its answer can be sent",
            None,
            MetricType::Histogram,
        )?;
        for (about, question) in QUESTIONS {
            let counted = counts.took(question).counted();
            let bounds = took::BOUNDS.iter().map(std::time::Duration::as_secs_f64).chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counted.within).collect();
            took.encode_family(&[("about", about)])?.encode_histogram::<NoLabelSet>(
                counted.sum.as_secs_f64(),
                counted.count(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}
