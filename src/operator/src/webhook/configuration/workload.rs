//! What runs the pods' webhook: a Deployment of two, their Service, and how many of them may be away.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, EnvVar, HTTPGetAction, PodAffinityTerm,
    PodAntiAffinity, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements,
    SeccompProfile, SecurityContext, Service, ServicePort, ServiceSpec, WeightedPodAffinityTerm,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::certificates::{CERTIFICATE_VARIABLE, SERVICE_CA_REQUEST, Source};
use super::super::pods::settings::{POD_VM_EXTENDED_RESOURCE, POD_VM_INSTANCE_TYPE, TARGET_RUNTIMECLASS};
use super::super::server::{HEALTHZ, READYZ};
use super::{
    CERTIFICATE_SECRET, DEPLOYMENT, HEALTH_PORT, MatchConditions, PORT, SERVICE, Setup, labels, named,
    selector,
};

const REPLICAS: i32 = 2;
const HOSTNAME: &str = "kubernetes.io/hostname";
/// Seconds in which a pod that is told to end answers what is under way; above what the server takes for that.
const GRACE: i64 = 30;

/// The Deployment.
#[must_use]
pub fn deployment(setup: &Setup) -> Deployment {
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels()), ..ObjectMeta::default() }),
        spec: Some(pod(setup)),
    };
    let spec = DeploymentSpec {
        replicas: Some(REPLICAS),
        selector: selecting(),
        // Never fewer than there were: the new one answers before an old one goes.
        strategy: Some(DeploymentStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateDeployment {
                max_surge: Some(IntOrString::Int(1)),
                max_unavailable: Some(IntOrString::Int(0)),
            }),
        }),
        template,
        ..DeploymentSpec::default()
    };
    Deployment { metadata: named(DEPLOYMENT, Some(&setup.namespace)), spec: Some(spec), status: None }
}

fn pod(setup: &Setup) -> PodSpec {
    PodSpec {
        // Preferred, not required: a cluster of one node runs both there.
        affinity: Some(apart()),
        containers: vec![container(setup)],
        // Pods of the peer pod classes cannot be created without it.
        priority_class_name: Some("system-cluster-critical".to_owned()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: setup.user,
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        service_account_name: Some(DEPLOYMENT.to_owned()),
        termination_grace_period_seconds: Some(GRACE),
        ..PodSpec::default()
    }
}

fn container(setup: &Setup) -> Container {
    Container {
        name: DEPLOYMENT.to_owned(),
        image: Some(setup.image.clone()),
        args: Some(vec!["run".to_owned()]),
        env: Some(environment(setup)),
        ports: Some(vec![port("webhook", PORT), port("metrics", HEALTH_PORT)]),
        liveness_probe: Some(Probe { initial_delay_seconds: Some(5), ..probe(HEALTHZ, 20) }),
        readiness_probe: Some(probe(READYZ, 5)),
        resources: Some(ResourceRequirements {
            requests: Some(amounts("10m", "64Mi")),
            limits: Some(amounts("500m", "256Mi")),
            claims: None,
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn environment(setup: &Setup) -> Vec<EnvVar> {
    let classes: Vec<&str> = setup.pods.classes.iter().map(String::as_str).collect();
    let mut variables = vec![
        ("PEERPODS_ROLES", "webhook".to_owned()),
        ("PEERPODS_NAMESPACE", setup.namespace.clone()),
        ("PEERPODS_HEALTH_ADDRESS", format!("0.0.0.0:{HEALTH_PORT}")),
        (TARGET_RUNTIMECLASS, classes.join(",")),
        (POD_VM_EXTENDED_RESOURCE, setup.pods.resource.clone()),
    ];
    // Who is not the one that makes the certificate must not be first to.
    if setup.source != Source::Own {
        variables.push((CERTIFICATE_VARIABLE, setup.source.to_string()));
    }
    variables.extend(setup.pods.instance_type.clone().map(|value| (POD_VM_INSTANCE_TYPE, value)));
    let variable = |(name, value): (&str, String)| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        value_from: None,
    };
    variables.into_iter().map(variable).collect()
}

fn probe(path: &str, every: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(PORT),
            scheme: Some("HTTPS".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(every),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

fn amounts(cpu: &str, memory: &str) -> std::collections::BTreeMap<String, Quantity> {
    [("cpu", cpu), ("memory", memory)]
        .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
        .into()
}

fn apart() -> Affinity {
    let term = PodAffinityTerm {
        label_selector: Some(selecting()),
        topology_key: HOSTNAME.to_owned(),
        ..PodAffinityTerm::default()
    };
    let preferred = WeightedPodAffinityTerm { pod_affinity_term: term, weight: 100 };
    let pod_anti_affinity = PodAntiAffinity {
        preferred_during_scheduling_ignored_during_execution: Some(vec![preferred]),
        required_during_scheduling_ignored_during_execution: None,
    };
    Affinity { pod_anti_affinity: Some(pod_anti_affinity), ..Affinity::default() }
}

fn selecting() -> LabelSelector {
    LabelSelector { match_labels: Some(selector()), match_expressions: None }
}

/// The Service. Where OpenShift's service-ca makes the certificate, it is asked here.
#[must_use]
pub fn service(setup: &Setup) -> Service {
    let mut metadata = named(SERVICE, Some(&setup.namespace));
    if setup.source == Source::ServiceCa {
        metadata.annotations = Some([(SERVICE_CA_REQUEST.to_owned(), CERTIFICATE_SECRET.to_owned())].into());
    }
    let port = ServicePort {
        name: Some(SERVICE.to_owned()),
        port: 443,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::Int(PORT)),
        ..ServicePort::default()
    };
    let spec = ServiceSpec {
        ports: Some(vec![port]),
        selector: Some(selector()),
        type_: Some("ClusterIP".to_owned()),
        ..ServiceSpec::default()
    };
    Service { metadata, spec: Some(spec), status: None }
}

/// One may be away. Pods that never became ready do not hold a drain up, where the API server knows of that (from 1.26 on, and always from
/// 1.27): what it does not know it refuses.
#[must_use]
pub fn disruption_budget(setup: &Setup) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: named(DEPLOYMENT, Some(&setup.namespace)),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selecting()),
            unhealthy_pod_eviction_policy: (setup.match_conditions == MatchConditions::Supported)
                .then(|| "AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
