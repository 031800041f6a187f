//! Containers: what they are made of, and what they run in.

use peerpods_proto::ttrpc::agent::{
    CreateContainerRequest, DestroySandboxRequest, StatsContainerRequest, Storage, UpdateContainerRequest,
};
use peerpods_proto::ttrpc::oci;
use peerpods_test_require::require;
use ttrpc::Code;

use crate::harness::{Agent, Cgroups, NEEDS, mount, refusal, soon};

#[tokio::test]
async fn a_container_has_its_own_processes_root_and_devices_and_the_sandboxes_name() {
    if !require("a_container_has_its_own_processes_root_and_devices_and_the_sandboxes_name", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    let script = "echo $$; hostname; ls /; echo x > /dev/null && echo null; echo $HOME; ls /proc/1/root";
    agent.run("c", &["sh", "-c", script]).await;
    let output = agent.stdout("c", "").await;
    let root = "bin\ndev\netc\nproc\nsys\ntmp\n";
    assert_eq!(output, format!("1\npod-host\n{root}null\n/root\n{root}"));
}

#[tokio::test]
async fn a_container_joins_the_network_namespace_it_is_told_to() {
    if !require("a_container_joins_the_network_namespace_it_is_told_to", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    agent.command(&["ip", "netns", "add", "podns"]);
    agent.command(&["ip", "-n", "podns", "link", "add", "mark0", "type", "bridge"]);
    agent
        .run_with("c", &["ip", "-o", "link"], |request| {
            let linux = request.OCI.mut_or_insert_default().Linux.mut_or_insert_default();
            let path = "/run/netns/podns".into();
            linux.Namespaces.push(oci::LinuxNamespace {
                Type: "network".into(),
                Path: path,
                ..Default::default()
            });
        })
        .await;
    let output = agent.stdout("c", "").await;
    assert!(output.contains("mark0"), "not the namespace with the interface mark0: {output}");
}

#[tokio::test]
async fn a_process_is_who_it_is_told_to_be() {
    if !require("a_process_is_who_it_is_told_to_be", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    agent
        .run_with(
            "c",
            &[
                "sh",
                "-c",
                "id -u; id -g; id -G; pwd; echo $HOME; cat /proc/self/status; ulimit -n; echo x >/dev/stderr",
            ],
            |request| {
                let process = request.OCI.mut_or_insert_default().Process.mut_or_insert_default();
                let user = oci::User { UID: 33, GID: 33, AdditionalGids: vec![4, 27], ..Default::default() };
                process.User = Some(user).into();
                process.Cwd = "/srv/work".into();
                process.NoNewPrivileges = true;
                let bind = vec!["CAP_NET_BIND_SERVICE".to_owned()];
                process.Capabilities = Some(oci::LinuxCapabilities {
                    Bounding: bind.clone(),
                    Permitted: bind.clone(),
                    Effective: bind.clone(),
                    Inheritable: bind.clone(),
                    Ambient: bind,
                    ..Default::default()
                })
                .into();
                let limit = oci::POSIXRlimit {
                    Type: "RLIMIT_NOFILE".into(),
                    Soft: 77,
                    Hard: 99,
                    ..Default::default()
                };
                process.Rlimits = vec![limit];
            },
        )
        .await;
    let output = agent.stdout("c", "").await;
    assert!(output.starts_with("33\n33\n33 4 27\n/srv/work\n/srv/web\n"), "{output}");
    for (set, value) in [
        ("CapInh", 1 << 10),
        ("CapPrm", 1 << 10),
        ("CapEff", 1 << 10),
        ("CapBnd", 1 << 10),
        ("CapAmb", 1 << 10),
    ] {
        assert!(output.contains(&format!("{set}:\t{value:016x}\n")), "{set} in {output}");
    }
    assert!(output.contains("NoNewPrivs:\t1\n"), "{output}");
    assert!(output.ends_with("\n77\n"), "{output}");
    assert_eq!(agent.stderr("c", "").await, "x\n", "its own streams can be opened by path");
}

#[tokio::test]
async fn a_read_only_root_a_hidden_path_and_a_kernel_parameter_are_as_asked() {
    if !require("a_read_only_root_a_hidden_path_and_a_kernel_parameter_are_as_asked", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    let script = "touch /new || echo refused; cat /proc/uptime; ls /proc/irq; \
                  echo 0 > /proc/sys/kernel/msgmax || echo kept; cat /proc/sys/kernel/msgmax";
    agent
        .run_with("c", &["sh", "-c", script], |request| {
            let spec = request.OCI.mut_or_insert_default();
            spec.Root.mut_or_insert_default().Readonly = true;
            let linux = spec.Linux.mut_or_insert_default();
            linux.MaskedPaths = vec!["/proc/uptime".into(), "/proc/irq".into(), "/proc/nothing".into()];
            linux.ReadonlyPaths = vec!["/proc/sys".into()];
            linux.Sysctl.insert("kernel.msgmax".into(), "4321".into());
        })
        .await;
    assert_eq!(agent.stdout("c", "").await, "refused\nkept\n4321\n");
}

#[tokio::test]
async fn an_overlay_is_writable_and_gone_with_the_container() {
    if !require("an_overlay_is_writable_and_gone_with_the_container", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    let overlay = |lower: String| Storage {
        driver: "overlayfs".into(),
        source: "overlay".into(),
        fstype: "overlay".into(),
        mount_point: "/run/kata-containers/c/rootfs".into(),
        options: vec!["io.katacontainers.fs-opt.overlay-rw".into(), format!("lowerdir={lower}")],
        ..Default::default()
    };
    for round in ["first", "second"] {
        agent
            .run_with("c", &["sh", "-c", "ls /new; echo > /new; ls /new"], |request| {
                request.storages = vec![overlay(agent.rootfs().to_str().unwrap().into())];
                let root = request.OCI.mut_or_insert_default().Root.mut_or_insert_default();
                root.Path = "/run/kata-containers/c/rootfs".into();
            })
            .await;
        assert_eq!(agent.stdout("c", "").await, "/new\n", "{round}");
        agent.remove("c").await.unwrap();
    }
    assert!(!agent.rootfs().join("new").exists());
}

/// As kata 3.19's Go shim asks for it with `experimental_force_guest_pull`.
fn pulled(image: &str, id: &str) -> impl FnOnce(&mut CreateContainerRequest) {
    let rootfs = format!("/run/kata-containers/{id}/rootfs");
    let storage = Storage {
        driver: "image_guest_pull".into(),
        driver_options: vec!["image_guest_pull={\"metadata\":{}}".into()],
        source: image.into(),
        fstype: "overlay".into(),
        mount_point: rootfs.clone(),
        ..Default::default()
    };
    move |request| {
        request.storages = vec![storage];
        request.OCI.mut_or_insert_default().Root.mut_or_insert_default().Path = rootfs;
    }
}

#[tokio::test]
async fn a_pod_of_images_is_made_of_the_userland() {
    if !require("a_pod_of_images_is_made_of_the_userland", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    // What the shim names is the program of the node's pause image, and the VM has another.
    agent.run_with("sb", &["/pause"], pulled("pause", "sb")).await;
    let script = "ls /new; echo > /new; ls /new";
    let image = "localhost/peerpods-userland:latest";
    agent.run_with("c", &["sh", "-c", script], pulled(image, "c")).await;
    assert_eq!(agent.stdout("c", "").await, "/new\n");
    agent.remove("c").await.unwrap();
    assert!(!agent.rootfs().join("new").exists());
    agent.signal("sb", "", 15).await.unwrap();
    assert_eq!(agent.wait("sb", "").await.unwrap(), 137, "pause ran until then");
    agent.remove("sb").await.unwrap();
    agent.command(&["test", "!", "-e", "/run/kata-containers/sb"]);
}

#[tokio::test]
async fn what_cannot_be_made_is_refused_with_its_name() {
    if !require("what_cannot_be_made_is_refused_with_its_name", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    let (code, text) = refusal(
        agent
            .create("c", &["true"], |request| {
                let (driver, mount_point) = ("blk".into(), "/run/kata-containers/c/rootfs".into());
                request.storages = vec![Storage { driver, mount_point, ..Default::default() }];
            })
            .await,
    );
    assert_eq!(code, Code::INVALID_ARGUMENT);
    assert!(text.contains("blk"), "{text}");
    let (code, text) = refusal(agent.create("c", &["true"], pulled("docker.io/library/nginx", "c")).await);
    assert_eq!(code, Code::INVALID_ARGUMENT);
    assert!(text.contains("nginx"), "{text}");
    let no_root = |request: &mut CreateContainerRequest| {
        request.OCI.mut_or_insert_default().Root.mut_or_insert_default().Path = "/nonesuch".into();
    };
    let (code, text) = refusal(agent.create("c", &["true"], no_root).await);
    assert_eq!(code, Code::INVALID_ARGUMENT);
    assert!(text.contains("/nonesuch"), "{text}");
    let (code, _) = refusal(agent.create("../c", &["true"], |_| {}).await);
    assert_eq!(code, Code::INVALID_ARGUMENT);
    agent.run("c", &["true"]).await;
}

#[tokio::test]
async fn containers_of_a_pod_share_processes_and_volumes_where_they_are_told_to() {
    if !require("containers_of_a_pod_share_processes_and_volumes_where_they_are_told_to", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    let volume = |request: &mut CreateContainerRequest| {
        request.sandbox_pidns = true;
        request.storages = vec![Storage {
            driver: "local".into(),
            mount_point: "/run/kata-containers/sandbox/local/v".into(),
            options: vec!["mode=0777".into()],
            ..Default::default()
        }];
        let bind = mount("/v", "bind", "/run/kata-containers/sandbox/local/v", &["rbind"]);
        request.OCI.mut_or_insert_default().Mounts.push(bind);
    };
    agent.run_with("sb", &["sh", "-c", "echo shared > /v/file; echo done; sleep 4646"], volume).await;
    agent.stdout_until("sb", "", "done").await;
    agent.run_with("c", &["sh", "-c", "cat /v/file; cat /proc/1/cmdline"], volume).await;
    let output = agent.stdout("c", "").await;
    assert!(output.starts_with("shared\nsleep\x004646"), "{output:?}");
    agent.remove("c").await.unwrap();
    agent.run_with("d", &["cat", "/v/file"], volume).await;
    assert_eq!(agent.stdout("d", "").await, "shared\n", "the volume outlives one of its users");
}

#[tokio::test]
async fn a_container_runs_in_a_cgroup_where_there_are_any() {
    if !require("a_container_runs_in_a_cgroup_where_there_are_any", NEEDS) {
        return;
    }
    let agent = Agent::start_with(Cgroups::Unified).await;
    let id = format!("cg-{}", std::process::id());
    agent
        .run_with(
            &id,
            &[
                "sh",
                "-c",
                "cat /proc/self/cgroup; ls -d /sys/fs/cgroup/cgroup.procs; sleep 1000 & sleep 1000",
            ],
            |request| {
                let resources = request
                    .OCI
                    .mut_or_insert_default()
                    .Linux
                    .mut_or_insert_default()
                    .Resources
                    .mut_or_insert_default();
                resources.Pids.mut_or_insert_default().Limit = 50;
            },
        )
        .await;
    // Its own cgroup is the root of what it sees.
    let output = agent.stdout_until(&id, "", "cgroup.procs\n").await;
    let tree = format!("/sys/fs/cgroup/containers/{id}");
    agent.command(&["grep", "-q", ".", &format!("{tree}/cgroup.procs")]);
    assert!(output.contains("0::/\n"), "{output}");
    assert!(output.contains("/sys/fs/cgroup/cgroup.procs"), "{output}");
    stats_have_figures(&agent, &id).await;
    // A resize: what is given changes, the rest stays.
    let limit_of = |pids: i64| {
        let mut request = UpdateContainerRequest { container_id: id.clone(), ..Default::default() };
        request.resources.mut_or_insert_default().Pids.mut_or_insert_default().Limit = pids;
        request
    };
    agent.service.update_container(soon(), &limit_of(60)).await.unwrap();
    agent.service.update_container(soon(), &limit_of(0)).await.unwrap();
    let pids = format!("{tree}/pids.max");
    // The tree may lack the controller; then there is no such file, and no limit.
    agent.command(&["sh", "-c", &format!("test ! -e {pids} || grep -qx 60 {pids}")]);
    let unknown = UpdateContainerRequest { container_id: "none".into(), ..Default::default() };
    let (code, _) = refusal(agent.service.update_container(soon(), &unknown).await);
    assert_eq!(code, Code::INVALID_ARGUMENT);
    agent.remove(&id).await.unwrap();
    agent.command(&["test", "!", "-e", &tree]);
    // The tree is the machine's own, mounted once more.
    agent.service.destroy_sandbox(soon(), &DestroySandboxRequest::new()).await.unwrap();
}

#[tokio::test]
async fn a_container_has_figures_also_without_cgroups() {
    if !require("a_container_has_figures_also_without_cgroups", NEEDS) {
        return;
    }
    let agent = Agent::start().await;
    agent
        .run("c", &["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; sleep 1000"])
        .await;
    agent.stdout_until("c", "", "done").await;
    stats_have_figures(&agent, "c").await;
}

async fn stats_have_figures(agent: &Agent, id: &str) {
    let request = StatsContainerRequest { container_id: id.into(), ..Default::default() };
    let stats = agent.service.stats_container(soon(), &request).await.unwrap();
    assert!(stats.cgroup_stats.cpu_stats.cpu_usage.total_usage > 0, "{stats}");
    assert!(stats.network_stats.iter().any(|interface| interface.name == "lo"), "{stats}");
}
