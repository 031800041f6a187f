//! Tests of the conversion; a file of their own because of their length.

use super::*;

fn namespace(kind: &str, path: &str) -> oci::LinuxNamespace {
    oci::LinuxNamespace { Type: kind.into(), Path: path.into(), ..Default::default() }
}

fn spec() -> oci::Spec {
    let mut spec = oci::Spec { Hostname: "own".into(), ..Default::default() };
    spec.Root.mut_or_insert_default().Path = "/r".into();
    spec.Linux.mut_or_insert_default().Namespaces = vec![
        namespace("mount", ""),
        namespace("uts", ""),
        namespace("ipc", ""),
        namespace("network", "/run/netns/podns"),
    ];
    spec
}

fn path_of(plan: &ContainerPlan, kind: NamespaceKind) -> Option<Option<&Path>> {
    plan.namespaces.iter().find(|n| n.kind == kind).map(|n| n.path.as_deref())
}

#[test]
fn names_and_ipc_are_the_sandboxes_and_the_network_is_the_one_given() {
    let around = Surroundings {
        uts: Some("/proc/9/fd/4".into()),
        ipc: Some("/proc/9/fd/5".into()),
        ..Surroundings::default()
    };
    let plan = container(&spec(), &around).unwrap();
    assert_eq!(path_of(&plan, NamespaceKind::Uts), Some(Some(Path::new("/proc/9/fd/4"))));
    assert_eq!(path_of(&plan, NamespaceKind::Ipc), Some(Some(Path::new("/proc/9/fd/5"))));
    assert_eq!(path_of(&plan, NamespaceKind::Network), Some(Some(Path::new("/run/netns/podns"))));
    assert_eq!(plan.hostname, None, "the sandbox has set it");
}

#[test]
fn process_and_mount_namespaces_are_new_even_where_the_description_has_none() {
    let mut bare = spec();
    bare.Linux.mut_or_insert_default().Namespaces.clear();
    let plan = container(&bare, &Surroundings::default()).unwrap();
    assert_eq!(path_of(&plan, NamespaceKind::Pid), Some(None));
    assert_eq!(path_of(&plan, NamespaceKind::Mount), Some(None));
    assert_eq!(path_of(&plan, NamespaceKind::Network), None, "then it is the agent's");
}

#[test]
fn a_shared_process_namespace_is_joined() {
    let around = Surroundings { pid: Some("/proc/77/ns/pid".into()), ..Surroundings::default() };
    let plan = container(&spec(), &around).unwrap();
    assert_eq!(path_of(&plan, NamespaceKind::Pid), Some(Some(Path::new("/proc/77/ns/pid"))));
}

#[test]
fn a_hostname_is_set_only_in_a_namespace_of_the_containers_own() {
    assert_eq!(container(&spec(), &Surroundings::default()).unwrap().hostname.as_deref(), Some("own"));
    let mut without = spec();
    without.Linux.mut_or_insert_default().Namespaces.retain(|n| n.Type != "uts");
    assert_eq!(container(&without, &Surroundings::default()).unwrap().hostname, None);
}

#[test]
fn what_would_weaken_the_container_is_refused_not_ignored() {
    let mut filtered = spec();
    filtered.Linux.mut_or_insert_default().Seccomp = Some(oci::LinuxSeccomp::new()).into();
    assert!(container(&filtered, &Surroundings::default()).is_err());
    let mut hooked = spec();
    hooked.Hooks.mut_or_insert_default().Prestart = vec![oci::Hook::new()];
    assert!(container(&hooked, &Surroundings::default()).is_err());
    let mut user = spec();
    user.Linux.mut_or_insert_default().Namespaces.push(namespace("user", ""));
    assert!(container(&user, &Surroundings::default()).is_err());
}

fn asked_mount(kind: &str, source: &str, options: &[&str]) -> oci::Mount {
    oci::Mount {
        destination: "/m".into(),
        source: source.into(),
        type_: kind.into(),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
        ..Default::default()
    }
}

#[test]
fn a_bind_is_told_by_its_type_or_by_its_options() {
    let by_type = mount(&asked_mount("bind", "/s", &["ro"]), Cgroups::None).unwrap().unwrap();
    assert_eq!(by_type.what, MountSource::Bind { path: "/s".into(), recursive: false });
    let by_option = mount(&asked_mount("none", "/s", &["rbind"]), Cgroups::None).unwrap().unwrap();
    assert_eq!(by_option.what, MountSource::Bind { path: "/s".into(), recursive: true });
    assert!(mount(&asked_mount("bind", "relative", &[]), Cgroups::None).is_err());
}

#[test]
fn a_cgroup_mount_is_version_two_or_left_out() {
    let asked = asked_mount("cgroup", "cgroup", &["nosuid", "relatime", "ro"]);
    assert_eq!(mount(&asked, Cgroups::None).unwrap(), None);
    let made = mount(&asked, Cgroups::Unified).unwrap().unwrap();
    assert!(matches!(made.what, MountSource::Filesystem { fstype, .. } if fstype == "cgroup2"));
}

#[test]
fn a_process_needs_arguments_and_an_absolute_directory() {
    assert_eq!(process(&oci::Process::new()), Err(ConvertError::NoArguments));
    let mut asked = oci::Process { Args: vec!["sh".into()], Cwd: "x".into(), ..Default::default() };
    assert!(matches!(process(&asked), Err(ConvertError::NotAbsolute { .. })));
    asked.Cwd.clear();
    assert_eq!(process(&asked).unwrap().cwd, Path::new("/"));
}

#[test]
fn capabilities_have_the_kernels_numbers() {
    let names = |names: &[&str]| capability_set(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
    assert_eq!(names(&["CAP_CHOWN", "CAP_NET_ADMIN"]).unwrap(), 1 | 1 << 12);
    assert_eq!(names(&["CHECKPOINT_RESTORE"]).unwrap(), 1 << 40);
    assert!(names(&["CAP_FLY"]).is_err());
}
