//! The controllers: one replica leads and runs them all; which cloud VMs are deleted at is known from the settings of the node service.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt as _;
use kube::Client;
use peerpods_operator::deploy::OPERATOR;
use peerpods_operator::lease::{self, Candidate};
use peerpods_operator::peerpod::clouds::{Cloud, Clouds, MakeCloud, Variables};
use peerpods_operator::peerpod::metrics::Metrics;
use peerpods_operator::peerpod::world::Pace;
use peerpods_operator::{kataconfig, peerpod, peerpodconfig};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::Prepared;
use crate::config::{self, Environment, ProviderSettings, Settings, layers};
use crate::health::{Check, Counts};

/// Prepares them.
pub(super) fn prepare(
    settings: &Settings,
    client: &Client,
    stop: CancellationToken,
    registry: &mut Registry,
) -> Prepared {
    let metrics = Metrics::default();
    metrics.register(registry);
    let (leading, leader) = (Arc::new(AtomicBool::new(false)), Gauge::<i64>::default());
    registry.register("peerpods_operator_leading", "Whether this replica's controllers work", leader.clone());
    let shown = leading.clone();
    let standing_by =
        move || if shown.load(Ordering::Relaxed) { Ok(()) } else { Err("another replica leads".to_owned()) };
    let checks = vec![Check::new("leading", Counts::Never, standing_by)];
    let (client, controllers) = (client.clone(), settings.operator.controllers.clone());
    let candidate = Candidate {
        namespace: controllers.namespace.clone(),
        name: OPERATOR.to_owned(),
        identity: format!("{}-{}", settings.hypervisor.node, uuid::Uuid::new_v4()),
    };
    let work = {
        let client = client.clone();
        move |told: CancellationToken| {
            let running = controllers_of(client.clone(), controllers.clone(), metrics.clone(), told);
            let shown = Leading::shown(leading.clone(), leader.clone());
            async move {
                running.await;
                drop(shown);
            }
        }
    };
    let running = lease::lead(client, candidate, stop, work).map(Ok).boxed();
    Prepared { running, checks }
}

/// That this replica's controllers work, as it is seen from outside; ends when it is dropped, as the work may be.
struct Leading {
    check: Arc<AtomicBool>,
    gauge: Gauge<i64>,
}

impl Leading {
    fn shown(check: Arc<AtomicBool>, gauge: Gauge<i64>) -> Self {
        check.store(true, Ordering::Relaxed);
        gauge.set(1);
        Self { check, gauge }
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.check.store(false, Ordering::Relaxed);
        self.gauge.set(0);
    }
}

/// All controllers, until they are told to end.
async fn controllers_of(
    client: Client,
    settings: peerpods_operator::settings::Settings,
    metrics: Metrics,
    told: CancellationToken,
) {
    let stop = || told.clone().cancelled_owned();
    let make: MakeCloud = Arc::new(cloud);
    let clouds = Clouds::new(client.clone(), &settings.namespace, make);
    let namespace = settings.namespace.clone();
    tokio::join!(
        kataconfig::controller::run(client.clone(), settings.clone(), stop()),
        peerpodconfig::controller::run(client.clone(), settings, stop()),
        peerpod::controller::run(client, &namespace, clouds, metrics, Pace::default(), stop()),
    );
}

/// The cloud that these variables mean, read as the node service reads them.
fn cloud(variables: &Variables) -> Result<Cloud, String> {
    let environment = Given(&variables.0);
    let settings =
        config::check(vec![layers::environment(&environment)]).map_err(|faults| faults.to_string())?;
    let cluster = settings.hypervisor.cluster_id.clone();
    Ok(match &settings.provider {
        // They run on their node, and end with it.
        ProviderSettings::Qemu(_) => Cloud { provider: None, cluster },
        #[cfg(feature = "aws")]
        elsewhere @ ProviderSettings::Aws(_) => Cloud { provider: Some(super::provider(elsewhere)), cluster },
    })
}

/// Variables that are not this process's.
struct Given<'a>(&'a BTreeMap<String, String>);

impl Environment for Given<'_> {
    fn get(&self, name: &str) -> Option<OsString> {
        self.0.get(name).map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Cloud, String> {
        cloud(&Variables(variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()))
    }

    #[test]
    fn vms_on_nodes_are_their_nodes_and_a_cluster_id_set_by_hand_counts() {
        let local = of(&[("CLOUD_PROVIDER", "qemu"), ("PEERPODS_CLUSTER_ID", "mine")]).unwrap();
        assert!(local.provider.is_none());
        assert_eq!(local.cluster.map(|id| id.to_string()).as_deref(), Some("mine"));
    }

    #[test]
    fn it_is_seen_from_outside_whether_the_controllers_work_also_when_they_are_dropped() {
        let (check, gauge) = (Arc::new(AtomicBool::new(false)), Gauge::<i64>::default());
        let shown = Leading::shown(check.clone(), gauge.clone());
        assert!(check.load(Ordering::Relaxed) && gauge.get() == 1);
        drop(shown);
        assert!(!check.load(Ordering::Relaxed) && gauge.get() == 0);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let Err(why) = of(&[("CLOUD_PROVIDER", "nimbus")]) else { panic!("there is no such cloud") };
        assert!(why.contains("provider") && why.contains("nimbus"), "{why}");
    }

    #[cfg(feature = "aws")]
    #[test]
    fn a_cloud_is_asked() {
        let there = of(&[
            ("CLOUD_PROVIDER", "aws"),
            ("AWS_REGION", "eu-west-1"),
            ("PODVM_AMI_ID", "ami-0123456789abcdef0"),
            ("AWS_SG_IDS", "sg-0123456789abcdef0"),
        ]);
        assert_eq!(there.unwrap().provider.unwrap().name(), "aws");
    }
}
