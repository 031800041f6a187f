//! An agent that runs commands as processes of this machine, behind the agent's real protocol. Like the real one it refuses what
//! comes out of order, and it counts. With a terminal it is as awkward as kata-agent 4.0.0: it heeds no initial size, loses the output
//! at CloseStdin, and ends the output with an error.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peerpods_proto::ttrpc::agent::*;
use peerpods_proto::ttrpc::agent_ttrpc::{AgentService, create_agent_service};
use peerpods_proto::ttrpc::oci::Process;
use protobuf::well_known_types::empty::Empty;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex as AsyncMutex, watch};
use ttrpc::asynchronous::{Server, TtrpcContext};

type Reader = AsyncMutex<Box<dyn AsyncRead + Send + Unpin>>;
type Answer<T> = ttrpc::Result<T>;

/// What a terminal's line discipline takes for the end of input.
const CTRL_D: u8 = 4;

/// A process that runs.
struct Running {
    pid: i32,
    terminal: bool,
    stdin: AsyncMutex<Option<ChildStdin>>,
    stdout: Reader,
    stderr: Reader,
    status: watch::Receiver<Option<i32>>,
}

/// What the agent was asked, for assertions.
#[derive(Debug, Default, Clone)]
pub(crate) struct Asked {
    pub(crate) sandboxes: usize,
    pub(crate) containers: Vec<CreateContainerRequest>,
    pub(crate) execs: Vec<ExecProcessRequest>,
    /// Rows and columns of terminals.
    pub(crate) sizes: Vec<(u32, u32)>,
}

#[derive(Default)]
struct State {
    asked: Asked,
    waiting: HashMap<String, Process>,
    running: HashMap<String, Arc<Running>>,
}

/// The agent; ends its server when dropped.
pub(crate) struct FakeAgent {
    state: Arc<Mutex<State>>,
    server: Server,
}

#[derive(Clone)]
struct Service(Arc<Mutex<State>>);

impl FakeAgent {
    pub(crate) async fn serve(socket: &Path) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let service = create_agent_service(Arc::new(Service(state.clone())));
        let address = format!("unix://{}", socket.display());
        let mut server = Server::new().bind(&address).unwrap().register_service(service);
        server.start().await.unwrap();
        Self { state, server }
    }

    pub(crate) fn asked(&self) -> Asked {
        self.state.lock().unwrap().asked.clone()
    }

    /// What the end of the VM does.
    pub(crate) async fn stop(&mut self) {
        let running: Vec<i32> =
            self.state.lock().unwrap().running.values().map(|process| process.pid).collect();
        for pid in running {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        self.server.shutdown().await.unwrap();
    }
}

fn refuse<T>(code: ttrpc::Code, text: &str) -> Answer<T> {
    Err(ttrpc::Error::RpcStatus(ttrpc::get_status(code, text)))
}

#[expect(unsafe_code, reason = "pre_exec is the only place between fork and exec")]
fn spawn(process: &Process) -> std::io::Result<Running> {
    let mut command = Command::new(&process.Args[0]);
    command.args(&process.Args[1..]).env_clear().current_dir(&process.Cwd);
    command.envs(process.Env.iter().filter_map(|variable| variable.split_once('=')));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // Like a container, out of reach of the terminal's own Ctrl-C.
    command.process_group(0);
    let default = || {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            // SAFETY: sets no handler.
            unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) }?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only signal(2) is called. Tests may run where the shell ignores SIGINT, and a shell cannot trap
    // what was ignored when it began.
    let mut child = unsafe { command.pre_exec(default) }.spawn()?;
    let (sender, status) = watch::channel(None);
    let running = Running {
        terminal: process.Terminal,
        pid: child.id().unwrap().try_into().unwrap(),
        stdin: AsyncMutex::new(child.stdin.take()),
        stdout: AsyncMutex::new(Box::new(child.stdout.take().unwrap())),
        stderr: AsyncMutex::new(Box::new(child.stderr.take().unwrap())),
        status,
    };
    tokio::spawn(async move { sender.send(Some(status_of(&mut child).await)) });
    Ok(running)
}

async fn status_of(child: &mut Child) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let status = child.wait().await.unwrap();
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn running(&self, container: &str, exec: &str) -> Answer<Arc<Running>> {
        match self.state().running.get(&format!("{container}/{exec}")) {
            Some(running) => Ok(running.clone()),
            None => refuse(ttrpc::Code::INVALID_ARGUMENT, "no such process"),
        }
    }

    fn start(&self, key: String, process: &Process) -> Answer<Empty> {
        match spawn(process) {
            Ok(running) => {
                self.state().running.insert(key, Arc::new(running));
                Ok(Empty::new())
            }
            Err(error) => refuse(ttrpc::Code::INTERNAL, &format!("{}: {error}", process.Args[0])),
        }
    }
}

async fn read(from: &Reader, len: u32) -> Answer<ReadStreamResponse> {
    let mut data = vec![0; len as usize];
    let len = from.lock().await.read(&mut data).await.unwrap();
    data.truncate(len);
    Ok(ReadStreamResponse { data, ..Default::default() })
}

#[async_trait]
impl AgentService for Service {
    async fn create_sandbox(&self, _: &TtrpcContext, _: CreateSandboxRequest) -> Answer<Empty> {
        self.state().asked.sandboxes += 1;
        Ok(Empty::new())
    }

    async fn create_container(&self, _: &TtrpcContext, request: CreateContainerRequest) -> Answer<Empty> {
        let mut state = self.state();
        if state.asked.sandboxes == 0 {
            return refuse(ttrpc::Code::FAILED_PRECONDITION, "no sandbox");
        }
        state.waiting.insert(request.container_id.clone(), (*request.OCI.Process).clone());
        state.asked.containers.push(request);
        Ok(Empty::new())
    }

    async fn start_container(&self, _: &TtrpcContext, request: StartContainerRequest) -> Answer<Empty> {
        let waiting = self.state().waiting.remove(&request.container_id);
        match waiting {
            Some(process) => self.start(format!("{0}/{0}", request.container_id), &process),
            None => refuse(ttrpc::Code::INVALID_ARGUMENT, "no such container"),
        }
    }

    async fn exec_process(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Answer<Empty> {
        self.running(&request.container_id, &request.container_id)?;
        self.state().asked.execs.push(request.clone());
        self.start(format!("{}/{}", request.container_id, request.exec_id), &request.process)
    }

    async fn read_stdout(&self, _: &TtrpcContext, request: ReadStreamRequest) -> Answer<ReadStreamResponse> {
        let running = self.running(&request.container_id, &request.exec_id)?;
        let answer = read(&running.stdout, request.len).await?;
        if running.terminal && answer.data.is_empty() {
            return refuse(
                ttrpc::Code::INTERNAL,
                "I/O error (os error 5)\n\nStack backtrace:\n   0: <unknown>",
            );
        }
        Ok(answer)
    }

    async fn read_stderr(&self, _: &TtrpcContext, request: ReadStreamRequest) -> Answer<ReadStreamResponse> {
        read(&self.running(&request.container_id, &request.exec_id)?.stderr, request.len).await
    }

    async fn write_stdin(
        &self,
        _: &TtrpcContext,
        request: WriteStreamRequest,
    ) -> Answer<WriteStreamResponse> {
        let running = self.running(&request.container_id, &request.exec_id)?;
        let mut stdin = running.stdin.lock().await;
        // Only half of what is given is taken at once, so that a client must offer the rest again.
        let taken = request.data.len().div_ceil(2);
        if running.terminal && request.data.first() == Some(&CTRL_D) {
            *stdin = None;
            return Ok(WriteStreamResponse { len: taken as u32, ..Default::default() });
        }
        match stdin.as_mut().unwrap().write_all(&request.data[..taken]).await {
            Ok(()) => Ok(WriteStreamResponse { len: taken as u32, ..Default::default() }),
            Err(error) => refuse(ttrpc::Code::INTERNAL, &error.to_string()),
        }
    }

    async fn close_stdin(&self, _: &TtrpcContext, request: CloseStdinRequest) -> Answer<Empty> {
        let running = self.running(&request.container_id, &request.exec_id)?;
        *running.stdin.lock().await = None;
        if running.terminal {
            *running.stdout.lock().await = Box::new(tokio::io::empty());
        }
        Ok(Empty::new())
    }

    async fn tty_win_resize(&self, _: &TtrpcContext, request: TtyWinResizeRequest) -> Answer<Empty> {
        self.running(&request.container_id, &request.exec_id)?;
        self.state().asked.sizes.push((request.row, request.column));
        Ok(Empty::new())
    }

    async fn signal_process(&self, _: &TtrpcContext, request: SignalProcessRequest) -> Answer<Empty> {
        let running = self.running(&request.container_id, &request.exec_id)?;
        let signal = Signal::try_from(request.signal as i32).unwrap();
        match kill(Pid::from_raw(running.pid), signal) {
            Ok(()) => Ok(Empty::new()),
            Err(errno) => refuse(ttrpc::Code::INTERNAL, &errno.to_string()),
        }
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        request: WaitProcessRequest,
    ) -> Answer<WaitProcessResponse> {
        let mut status = self.running(&request.container_id, &request.exec_id)?.status.clone();
        let status = status.wait_for(Option::is_some).await.unwrap().unwrap();
        Ok(WaitProcessResponse { status, ..Default::default() })
    }
}
