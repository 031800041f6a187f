//! Every form both shims are known to send.

use proptest::prelude::*;

use super::*;
use crate::hostile::any_text;

const TOML: &str = "algorithm = \"sha384\"\nversion = \"0.1.0\"\n\n[data]\n\"aa.toml\" = '''\n[kbs]\n'''\n";

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// What the Go shim sends for a pod without annotations, changed by `pairs`.
fn go(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let mut all = map(&[
        (keys::SANDBOX_NAME, "nginx"),
        (keys::SANDBOX_NAMESPACE, "default"),
        (keys::MACHINE_TYPE, ""),
        (keys::IMAGE, ""),
        (keys::VCPUS, "0"),
        (keys::MEMORY, "0"),
        (keys::GPUS, "0"),
        (keys::GPU_MODEL, ""),
        (keys::INITDATA, ""),
    ]);
    all.extend(map(pairs));
    all
}

fn read(pairs: &[(&str, &str)]) -> PodRequest {
    PodRequest::from_annotations(&go(pairs)).unwrap()
}

fn faults(pairs: &[(&str, &str)]) -> Vec<AnnotationFault> {
    PodRequest::from_annotations(&go(pairs)).unwrap_err().0
}

#[test]
fn a_pod_that_asks_for_nothing_gets_a_request_for_nothing() {
    let nothing = PodRequest {
        pod_name: "nginx".into(),
        pod_namespace: "default".into(),
        machine_type: None,
        image: None,
        vcpus: None,
        memory_mib: None,
        gpus: 0,
        gpu_model: None,
        initdata: None,
        unattended: false,
    };
    assert_eq!(read(&[]), nothing);
    let bare = map(&[(keys::SANDBOX_NAME, "nginx"), (keys::SANDBOX_NAMESPACE, "default")]);
    assert_eq!(PodRequest::from_annotations(&bare), Ok(nothing.clone()));
    let empty = [
        (keys::VCPUS, ""),
        (keys::MEMORY, " "),
        (keys::GPUS, ""),
        (keys::INITDATA, "0"),
        (keys::IMAGE, "0"),
        (keys::GPU_MODEL, "0"),
    ];
    assert_eq!(read(&empty), nothing);
    assert_eq!(read(&[("io.katacontainers.config.hypervisor.kernel_params", "x"), ("", "")]), nothing);
}

#[test]
fn a_pod_that_asks_for_everything_gets_it() {
    let request = read(&[
        (keys::MACHINE_TYPE, "m6a.large"),
        (keys::IMAGE, "/subscriptions/x/images/y"),
        (keys::VCPUS, "2"),
        (keys::MEMORY, "4096"),
        (keys::GPUS, "1"),
        (keys::GPU_MODEL, "tesla"),
        (keys::INITDATA, TOML),
    ]);
    assert_eq!(request.machine_type.as_deref(), Some("m6a.large"));
    assert_eq!(request.image.as_deref(), Some("/subscriptions/x/images/y"));
    assert_eq!((request.vcpus, request.memory_mib, request.gpus), (Some(2), Some(4096), 1));
    assert_eq!(request.gpu_model.as_deref(), Some("tesla"));
    assert_eq!(request.initdata.unwrap().as_toml(), TOML);
}

#[test]
fn only_a_plain_yes_makes_a_pod_unattended() {
    for (value, unattended) in [("true", true), ("false", false), ("", false), ("0", false)] {
        assert_eq!(read(&[(keys::UNATTENDED, value)]).unattended, unattended, "{value:?}");
    }
    assert_eq!(faults(&[(keys::UNATTENDED, "yes")])[0].key, keys::UNATTENDED);
}

#[test]
fn cri_o_names_are_taken_apart() {
    let full = "k8s_web-0_shop_0f3e-11_2";
    let shim = read(&[(keys::SANDBOX_NAME, full)]);
    assert_eq!((shim.pod_name.as_str(), shim.pod_namespace.as_str()), ("web-0", "default"));
    let bare = PodRequest::from_annotations(&map(&[(keys::SANDBOX_NAME, full)])).unwrap();
    assert_eq!((bare.pod_name.as_str(), bare.pod_namespace.as_str()), ("web-0", "shop"));
    let kube = read(&[
        (keys::SANDBOX_NAME, ""),
        (keys::SANDBOX_NAMESPACE, ""),
        (keys::CRIO_KUBE_NAME, "web-0"),
        (keys::CRIO_NAMESPACE, "shop"),
    ]);
    assert_eq!((kube.pod_name.as_str(), kube.pod_namespace.as_str()), ("web-0", "shop"));
    let last = PodRequest::from_annotations(&map(&[(keys::CRIO_SANDBOX_NAME, full)])).unwrap();
    assert_eq!((last.pod_name.as_str(), last.pod_namespace.as_str()), ("web-0", "shop"));
}

#[test]
fn processors_are_rounded_up_to_whole_ones() {
    for (value, vcpus) in [
        ("1", Some(1)),
        ("1.5", Some(2)),
        ("0.1", Some(1)),
        ("0.0001", Some(1)),
        ("2.0", Some(2)),
        ("1.0000001", Some(1)),
        ("1.001", Some(2)),
        ("0.0", None),
        ("4096", Some(4096)),
    ] {
        assert_eq!(read(&[(keys::VCPUS, value)]).vcpus, vcpus, "{value}");
    }
    for bad in ["-1", "NaN", "inf", "1e3", "4097", "99999999999999999999", "two", "1,5", ".", "1 2", "+1"] {
        let faults = faults(&[(keys::VCPUS, bad)]);
        assert_eq!(faults.len(), 1, "{bad}");
        assert_eq!(faults[0].key, keys::VCPUS);
        assert_eq!(faults[0].shown.as_deref(), Some(bad));
    }
}

#[test]
fn memory_is_in_mib_unless_a_unit_says_otherwise() {
    for (value, mib) in [
        ("2048", Some(2048)),
        ("2GiB", Some(2048)),
        ("2gib", Some(2048)),
        ("2 GiB", Some(2048)),
        ("2Gi", Some(2048)),
        ("2GB", Some(1908)),
        ("1.5GiB", Some(1536)),
        ("512MiB", Some(512)),
        ("1000000KiB", Some(977)),
        ("1048577B", Some(2)),
        ("1TiB", Some(1 << 20)),
        ("0GiB", None),
        ("0.5", Some(1)),
    ] {
        assert_eq!(read(&[(keys::MEMORY, value)]).memory_mib, mib, "{value}");
    }
    for bad in ["-1", "NaN", "inf", "2XiB", "GiB", "1e9", "99999999999", "65TiB", "2GiBs", "0x10"] {
        assert_eq!(faults(&[(keys::MEMORY, bad)]).len(), 1, "{bad}");
    }
}

#[test]
fn gpus_are_whole() {
    for bad in ["1.5", "-1", "257", "one", "+1"] {
        assert_eq!(faults(&[(keys::GPUS, bad)]).len(), 1, "{bad}");
    }
}

#[test]
fn initdata_is_taken_from_either_key_in_either_form() {
    let encoded = InitData::from_toml(TOML).unwrap().encode();
    for key in [keys::INITDATA, keys::INITDATA_OLD] {
        for value in [TOML, &encoded] {
            assert_eq!(read(&[(key, value)]).initdata.unwrap().as_toml(), TOML, "{key}");
        }
    }
    let both = read(&[(keys::INITDATA, TOML), (keys::INITDATA_OLD, &encoded)]);
    assert_eq!(both.initdata.unwrap().as_toml(), TOML);
}

#[test]
fn a_request_kept_in_a_journal_comes_back_and_broken_initdata_in_it_is_refused() {
    let request = read(&[(keys::VCPUS, "1.5"), (keys::IMAGE, "ami-1"), (keys::INITDATA, TOML)]);
    let kept = serde_json::to_string(&request).unwrap();
    assert_eq!(serde_json::from_str::<PodRequest>(&kept).unwrap(), request);
    assert!(serde_json::from_str::<PodRequest>(&kept.replace("sha384", "md5")).is_err());
}

#[test]
fn two_initdata_that_differ_are_refused() {
    let other = TOML.replace("0.1.0", "0.2.0");
    let faults = faults(&[(keys::INITDATA, TOML), (keys::INITDATA_OLD, &other)]);
    assert_eq!(faults.len(), 1);
    assert!(faults[0].to_string().contains("differs from"), "{}", faults[0]);
}

#[test]
fn all_faults_are_reported_at_once_with_key_value_and_expectation() {
    let error = PodRequest::from_annotations(&map(&[
        (keys::VCPUS, "many"),
        (keys::MEMORY, "lots"),
        (keys::GPUS, "-1"),
        (keys::IMAGE, "a\nb"),
        (keys::INITDATA, "algorithm = \"md5\"\nversion = \"0.1.0\"\n"),
    ]))
    .unwrap_err();
    let text = error.to_string();
    for part in [
        "io.kubernetes.cri.sandbox-name is missing: want the pod's name",
        "io.kubernetes.cri.sandbox-namespace is missing",
        "default_vcpus=\"many\": want a number of virtual processors",
        "default_memory=\"lots\": want memory",
        "default_gpus=\"-1\": want a whole number",
        "image=\"a\\nb\": want at most",
        "algorithm \"md5\" is unknown; want sha256, sha384 or sha512",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert_eq!(error.0.len(), 7);
}

#[test]
fn a_long_value_is_shown_shortened() {
    let faults = faults(&[(keys::IMAGE, &"i".repeat(5_000))]);
    assert_eq!(faults[0].shown.as_ref().unwrap().chars().count(), 61);
    let name =
        &PodRequest::from_annotations(&go(&[(keys::SANDBOX_NAME, &"p".repeat(254))])).unwrap_err().0[0];
    assert!(name.to_string().len() < 250, "{name}");
}

#[test]
fn names_that_could_not_come_from_kubernetes_are_refused() {
    for bad in ["../etc", "a b", "é", "a/b"] {
        assert_eq!(faults(&[(keys::SANDBOX_NAME, bad)]).len(), 1, "{bad}");
        assert_eq!(faults(&[(keys::SANDBOX_NAMESPACE, bad)]).len(), 1, "{bad}");
    }
    assert_eq!(faults(&[(keys::SANDBOX_NAMESPACE, &"n".repeat(64))]).len(), 1);
}

fn any_key() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        keys::SANDBOX_NAME,
        keys::SANDBOX_NAMESPACE,
        keys::CRIO_KUBE_NAME,
        keys::CRIO_SANDBOX_NAME,
        keys::CRIO_NAMESPACE,
        keys::MACHINE_TYPE,
        keys::IMAGE,
        keys::VCPUS,
        keys::MEMORY,
        keys::GPUS,
        keys::GPU_MODEL,
        keys::INITDATA,
        keys::INITDATA_OLD,
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn no_annotations_can_make_the_reader_panic_and_what_is_accepted_is_within_bounds(
        annotations in prop::collection::hash_map(
            any_key(),
            prop_oneof![any_text(), "[0-9.]{0,12}( ?[kKmMgGtT]?i?[bB]?)", "k8s_[a-z_]{0,9}", "H4sI[A-Za-z0-9+/=]{0,60}"],
            0..10,
        ),
    ) {
        if let Ok(request) = PodRequest::from_annotations(&annotations) {
            prop_assert!(!request.pod_name.is_empty() && !request.pod_namespace.is_empty());
            prop_assert!(request.vcpus.is_none_or(|n| (1..=4096).contains(&n)));
            prop_assert!(request.memory_mib.is_none_or(|n| (1..=64 << 20).contains(&n)));
        }
    }

    #[test]
    fn whatever_processors_are_asked_for_are_given_and_less_than_one_more(milli in 1_u32..4_096_000) {
        #[expect(clippy::cast_possible_truncation, reason = "runtime-rs holds an f32")]
        let value = (f64::from(milli) / 1000.0) as f32;
        let vcpus = read(&[(keys::VCPUS, &value.to_string())]).vcpus.unwrap();
        prop_assert_eq!(vcpus, milli.div_ceil(1000));
    }
}
