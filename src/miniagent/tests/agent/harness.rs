//! A real `miniagent` in mount and network namespaces of its own, so that /run and all mounts are not the machine's, and a shim-like
//! client of it.

use std::collections::HashMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use peerpods_proto::ttrpc::agent::{
    CreateContainerRequest, CreateSandboxRequest, ExecProcessRequest, ReadStreamRequest,
    RemoveContainerRequest, SignalProcessRequest, StartContainerRequest, WaitProcessRequest,
};
use peerpods_proto::ttrpc::agent_ttrpc::AgentServiceClient;
use peerpods_proto::ttrpc::health_ttrpc::HealthClient;
use peerpods_proto::ttrpc::oci;
use peerpods_test_require::Need;
use ttrpc::r#async::Client;
use ttrpc::context::{self, Context};

/// What every test here needs.
pub(crate) const NEEDS: &[Need] = &[
    Need::Root,
    Need::NetworkNamespaces,
    Need::Program("unshare"),
    Need::Program("nsenter"),
    Need::Program("ip"),
    Need::Program("ps"),
    Need::Path("/bin/busybox"),
];

/// A bound on everything, so that a test fails and does not hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The context of a call with a deadline, as the shims send it.
pub(crate) fn soon() -> Context {
    context::with_duration(PATIENCE)
}

/// A running agent. Dropping it kills it, and with it all containers and its namespaces.
pub(crate) struct Agent {
    process: Child,
    dir: tempfile::TempDir,
    pub(crate) service: AgentServiceClient,
    pub(crate) health: HealthClient,
}

/// What cgroups the agent finds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// Version 2 at its usual place.
    Unified,
    /// Nothing but an empty directory.
    None,
}

impl Agent {
    /// An agent with a sandbox `sb`.
    pub(crate) async fn start() -> Self {
        Self::start_with(Cgroups::None).await
    }

    pub(crate) async fn start_with(cgroups: Cgroups) -> Self {
        let agent = Self::start_bare(cgroups).await;
        let request = CreateSandboxRequest {
            sandbox_id: "sb".into(),
            hostname: "pod-host".into(),
            ..Default::default()
        };
        agent.service.create_sandbox(soon(), &request).await.unwrap();
        agent
    }

    /// An agent without a sandbox.
    pub(crate) async fn start_bare(cgroups: Cgroups) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), cgroups).await
    }

    /// An agent without a sandbox whose socket and container root are in `dir`.
    pub(crate) async fn start_in(dir: tempfile::TempDir, cgroups: Cgroups) -> Self {
        let socket = dir.path().join("agent.sock");
        let config = dir.path().join("agent.toml");
        let rootfs = dir.path().join("rootfs");
        let (address, userland) = (socket.display(), rootfs.display());
        let keys = format!("server_addr = \"unix://{address}\"\nuserland = \"{userland}\"\n");
        std::fs::write(&config, keys).unwrap();
        make_rootfs(&rootfs);
        let cgroup_tree = match cgroups {
            Cgroups::Unified => "mount -t cgroup2 none /sys/fs/cgroup",
            Cgroups::None => "mount -t tmpfs none /sys/fs/cgroup",
        };
        let script = format!(
            "mount -t tmpfs none /run; umount -R -l /sys/fs/cgroup; {cgroup_tree}; ip link set lo up; \
             \"$0\" --config \"$1\"; code=$?; while [ -e \"$2\" ]; do sleep 0.05; done; exit $code"
        );
        let process = Command::new("unshare")
            .args([
                "--mount",
                "--net",
                "--pid",
                "--mount-proc",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                &script,
            ])
            .arg(env!("CARGO_BIN_EXE_miniagent"))
            .arg(&config)
            .arg(dir.path().join("linger"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let client = connect(&socket).await;
        let (service, health) = (AgentServiceClient::new(client.clone()), HealthClient::new(client));
        Self { process, dir, service, health }
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    /// Makes a container, changed by `change`, and leaves it unstarted.
    pub(crate) async fn create(
        &self,
        id: &str,
        args: &[&str],
        change: impl FnOnce(&mut CreateContainerRequest),
    ) -> ttrpc::Result<()> {
        let mut request = container(id, &self.rootfs(), args);
        change(&mut request);
        self.service.create_container(soon(), &request).await.map(drop)
    }

    pub(crate) async fn start_container(&self, id: &str) -> ttrpc::Result<()> {
        let request = StartContainerRequest { container_id: id.into(), ..Default::default() };
        self.service.start_container(soon(), &request).await.map(drop)
    }

    /// Makes and starts a container.
    pub(crate) async fn run(&self, id: &str, args: &[&str]) {
        self.run_with(id, args, |_| {}).await;
    }

    pub(crate) async fn run_with(
        &self,
        id: &str,
        args: &[&str],
        change: impl FnOnce(&mut CreateContainerRequest),
    ) {
        self.create(id, args, change).await.unwrap();
        self.start_container(id).await.unwrap();
    }

    pub(crate) async fn exec(&self, id: &str, exec: &str, process: oci::Process) -> ttrpc::Result<()> {
        let request = ExecProcessRequest {
            container_id: id.into(),
            exec_id: exec.into(),
            process: Some(process).into(),
            ..Default::default()
        };
        self.service.exec_process(soon(), &request).await.map(drop)
    }

    pub(crate) async fn wait(&self, id: &str, exec: &str) -> ttrpc::Result<i32> {
        let request =
            WaitProcessRequest { container_id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.service.wait_process(soon(), &request).await.map(|answer| answer.status)
    }

    pub(crate) async fn signal(&self, id: &str, exec: &str, signal: u32) -> ttrpc::Result<()> {
        let (container_id, exec_id) = (id.into(), exec.into());
        let request = SignalProcessRequest { container_id, exec_id, signal, ..Default::default() };
        self.service.signal_process(soon(), &request).await.map(drop)
    }

    pub(crate) async fn remove(&self, id: &str) -> ttrpc::Result<()> {
        let request = RemoveContainerRequest { container_id: id.into(), timeout: 10, ..Default::default() };
        self.service.remove_container(soon(), &request).await.map(drop)
    }

    /// Standard output up to its end.
    pub(crate) async fn stdout(&self, id: &str, exec: &str) -> String {
        let mut all = Vec::new();
        loop {
            let data = self.service.read_stdout(soon(), &read(id, exec)).await.unwrap().data;
            if data.is_empty() {
                return String::from_utf8(all).unwrap();
            }
            all.extend(data);
        }
    }

    /// Standard output up to and with `wanted`.
    pub(crate) async fn stdout_until(&self, id: &str, exec: &str, wanted: &str) -> String {
        let mut all = String::new();
        while !all.contains(wanted) {
            let data = self.service.read_stdout(soon(), &read(id, exec)).await.unwrap().data;
            assert!(!data.is_empty(), "the stream ended before {wanted:?}; it had {all:?}");
            all.push_str(std::str::from_utf8(&data).unwrap());
        }
        all
    }

    pub(crate) async fn stderr(&self, id: &str, exec: &str) -> String {
        let data = self.service.read_stderr(soon(), &read(id, exec)).await.unwrap().data;
        String::from_utf8(data).unwrap()
    }

    /// Signals the agent, and neither `unshare` nor the shell above it.
    pub(crate) fn signal_agent(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Runs a command where the agent is.
    pub(crate) fn command(&self, args: &[&str]) {
        let target = self.pid().to_string();
        let done =
            Command::new("nsenter").args(["-t", &target, "-m", "-n", "-p"]).args(args).status().unwrap();
        assert!(done.success(), "{args:?}");
    }

    fn pid(&self) -> i32 {
        let child = |parent: i32| -> i32 {
            let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
            children.trim().parse().unwrap()
        };
        child(child(self.process.id().try_into().unwrap()))
    }

    /// Keeps the namespaces, and what still runs in them, when the agent has ended.
    pub(crate) fn linger(&self) {
        std::fs::write(self.dir.path().join("linger"), "").unwrap();
    }

    /// Drops the connection and makes another one.
    pub(crate) async fn reconnect(&mut self) {
        let client = connect(&self.socket()).await;
        (self.service, self.health) = (AgentServiceClient::new(client.clone()), HealthClient::new(client));
    }

    /// The agent's exit code; waits for it.
    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "the agent did not exit");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A read of as much as a shim asks for at once.
pub(crate) fn read(id: &str, exec: &str) -> ReadStreamRequest {
    ReadStreamRequest { container_id: id.into(), exec_id: exec.into(), len: 32 << 10, ..Default::default() }
}

async fn connect(socket: &Path) -> Client {
    let begun = Instant::now();
    loop {
        match Client::connect(&format!("unix://{}", socket.display())).await {
            Ok(client) => return client,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "no agent at {socket:?}: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn make_rootfs(rootfs: &Path) {
    for dir in ["bin", "proc", "dev", "etc", "tmp"] {
        std::fs::create_dir_all(rootfs.join(dir)).unwrap();
    }
    std::fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
    for name in ["sh", "cat", "echo", "sleep", "id", "stty", "hostname", "ip", "ls", "touch", "mount", "true"]
    {
        symlink("busybox", rootfs.join("bin").join(name)).unwrap();
    }
    std::fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv/web:/bin/sh\n")
        .unwrap();
}

/// A container as a shim asks for it: no network namespace, no paths.
pub(crate) fn container(id: &str, rootfs: &Path, args: &[&str]) -> CreateContainerRequest {
    let namespace = |kind: &str| oci::LinuxNamespace { Type: kind.into(), ..Default::default() };
    let linux = oci::Linux {
        Namespaces: ["mount", "uts", "ipc", "cgroup"].map(namespace).to_vec(),
        ..Default::default()
    };
    let spec = oci::Spec {
        Process: Some(process(args)).into(),
        Root: Some(oci::Root { Path: rootfs.to_str().unwrap().into(), ..Default::default() }).into(),
        Mounts: vec![
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro"]),
        ],
        Linux: Some(linux).into(),
        Annotations: HashMap::new(),
        ..Default::default()
    };
    CreateContainerRequest {
        container_id: id.into(),
        exec_id: id.into(),
        OCI: Some(spec).into(),
        ..Default::default()
    }
}

pub(crate) fn process(args: &[&str]) -> oci::Process {
    oci::Process {
        Args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        Env: vec!["PATH=/bin".into(), "GREETING=hello".into()],
        Cwd: "/".into(),
        ..Default::default()
    }
}

pub(crate) fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> oci::Mount {
    oci::Mount {
        destination: target.into(),
        type_: kind.into(),
        source: source.into(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Default::default()
    }
}

/// The status code and text of a refused call.
pub(crate) fn refusal<T: std::fmt::Debug>(result: ttrpc::Result<T>) -> (ttrpc::Code, String) {
    match result.unwrap_err() {
        ttrpc::Error::RpcStatus(status) => (status.code(), status.message),
        other => panic!("not refused by the agent: {other:?}"),
    }
}
