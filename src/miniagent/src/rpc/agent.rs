//! `grpc.AgentService`.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use peerpods_proto::ttrpc::agent::{
    CloseStdinRequest, CopyFileRequest, CreateContainerRequest, CreateSandboxRequest, DestroySandboxRequest,
    ExecProcessRequest, GetMetricsRequest, GetOOMEventRequest, GuestDetailsRequest, GuestDetailsResponse,
    Metrics, OOMEvent, OnlineCPUMemRequest, ReadStreamRequest, ReadStreamResponse, RemoveContainerRequest,
    RemoveStaleVirtiofsShareMountsRequest, ReseedRandomDevRequest, SetGuestDateTimeRequest,
    SignalProcessRequest, StartContainerRequest, StatsContainerRequest, StatsContainerResponse,
    TtyWinResizeRequest, UpdateContainerRequest, WaitProcessRequest, WaitProcessResponse, WriteStreamRequest,
    WriteStreamResponse,
};
use peerpods_proto::ttrpc::agent_ttrpc::AgentService;
use protobuf::well_known_types::empty::Empty;
use rustix::process::Signal;
use ttrpc::r#async::TtrpcContext;

use super::{answer, done, whole};
use crate::convert::cells;
use crate::error::AgentError;
use crate::process::Process;
use crate::sandbox::Sandbox;
use crate::stdio::Output;
use crate::{copy_file, guest, metrics, stats};

/// The service of one sandbox.
pub(super) struct Agent {
    sandbox: Arc<Sandbox>,
}

impl Agent {
    pub(super) fn new(sandbox: Arc<Sandbox>) -> Self {
        Self { sandbox }
    }

    async fn read(&self, output: Output, request: ReadStreamRequest) -> ttrpc::Result<ReadStreamResponse> {
        let process = answer(self.sandbox.process(&request.container_id, &request.exec_id))?;
        let len = usize::try_from(request.len).unwrap_or(usize::MAX);
        let data = answer(process.read(output, len).await.map_err(AgentError::from))?;
        Ok(ReadStreamResponse { data, ..Default::default() })
    }

    fn signal(&self, request: &SignalProcessRequest) -> Result<(), AgentError> {
        let process = self.sandbox.process(&request.container_id, &request.exec_id)?;
        let bad = || AgentError::BadSignal { number: request.signal };
        let number = i32::try_from(request.signal).map_err(|_| bad())?;
        let signal = Signal::from_named_raw(number).ok_or_else(bad)?;
        let whole_container = request.exec_id.is_empty() || request.exec_id == request.container_id;
        match signal {
            // The shims ask for everything to be killed in this way.
            Signal::KILL if request.exec_id.is_empty() => {
                self.sandbox.container(&request.container_id)?.kill_all()
            }
            // The kernel would not deliver it to the first process of a namespace that does not expect it, such as pause.
            Signal::TERM if whole_container && !handles(&process, signal) => {
                Ok(process.signal(Signal::KILL)?)
            }
            signal => Ok(process.signal(signal)?),
        }
    }
}

/// Whether the process has a handler for the signal.
fn handles(process: &Process, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    caught >> (signal.as_raw() - 1) & 1 == 1
}

#[async_trait]
impl AgentService for Agent {
    async fn create_sandbox(&self, _: &TtrpcContext, request: CreateSandboxRequest) -> ttrpc::Result<Empty> {
        done(self.sandbox.create(&request))
    }

    async fn destroy_sandbox(&self, _: &TtrpcContext, _: DestroySandboxRequest) -> ttrpc::Result<Empty> {
        let sandbox = Arc::clone(&self.sandbox);
        done(
            whole(async move {
                sandbox.destroy().await;
                Ok(())
            })
            .await,
        )
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let sandbox = Arc::clone(&self.sandbox);
        done(whole(async move { sandbox.create_container(request).await }).await)
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        request: StartContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let container = answer(self.sandbox.container(&request.container_id))?;
        done(whole(async move { Ok(container.init().start().await?) }).await)
    }

    async fn remove_container(
        &self,
        _: &TtrpcContext,
        request: RemoveContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let sandbox = Arc::clone(&self.sandbox);
        let (id, limit) = (request.container_id, request.timeout);
        done(whole(async move { sandbox.remove_container(&id, limit).await }).await)
    }

    /// The Go shim asks for it after each container. A pod VM shares no file system with its node, so nothing is stale.
    async fn remove_stale_virtiofs_share_mounts(
        &self,
        _: &TtrpcContext,
        _: RemoveStaleVirtiofsShareMountsRequest,
    ) -> ttrpc::Result<Empty> {
        Ok(Empty::new())
    }

    async fn exec_process(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let sandbox = Arc::clone(&self.sandbox);
        done(whole(async move { sandbox.exec(request).await }).await)
    }

    async fn signal_process(&self, _: &TtrpcContext, request: SignalProcessRequest) -> ttrpc::Result<Empty> {
        done(self.signal(&request))
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        request: WaitProcessRequest,
    ) -> ttrpc::Result<WaitProcessResponse> {
        let process = answer(self.sandbox.process(&request.container_id, &request.exec_id))?;
        Ok(WaitProcessResponse { status: process.wait().await, ..Default::default() })
    }

    async fn stats_container(
        &self,
        _: &TtrpcContext,
        request: StatsContainerRequest,
    ) -> ttrpc::Result<StatsContainerResponse> {
        answer(self.sandbox.container(&request.container_id)).map(|container| stats::of(&container))
    }

    /// A resize of the pod. Where the VM has no cgroups there is nothing to limit, as when the container was made.
    async fn update_container(
        &self,
        _: &TtrpcContext,
        request: UpdateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let container = answer(self.sandbox.container(&request.container_id))?;
        let limited = container.cgroup().map_or(Ok(()), |cgroup| cgroup.limit(&request.resources));
        done(limited.map_err(AgentError::from))
    }

    async fn write_stdin(
        &self,
        _: &TtrpcContext,
        request: WriteStreamRequest,
    ) -> ttrpc::Result<WriteStreamResponse> {
        let process = answer(self.sandbox.process(&request.container_id, &request.exec_id))?;
        let streams = process.streams();
        // runtime-rs ends the input with an empty write, the Go shim with CloseStdin.
        if request.data.is_empty() {
            streams.close_stdin().await;
        } else {
            answer(streams.write(&request.data, process.exit()).await.map_err(AgentError::from))?;
        }
        let len = u32::try_from(request.data.len()).unwrap_or(u32::MAX);
        Ok(WriteStreamResponse { len, ..Default::default() })
    }

    async fn read_stdout(
        &self,
        _: &TtrpcContext,
        request: ReadStreamRequest,
    ) -> ttrpc::Result<ReadStreamResponse> {
        self.read(Output::Stdout, request).await
    }

    async fn read_stderr(
        &self,
        _: &TtrpcContext,
        request: ReadStreamRequest,
    ) -> ttrpc::Result<ReadStreamResponse> {
        self.read(Output::Stderr, request).await
    }

    async fn close_stdin(&self, _: &TtrpcContext, request: CloseStdinRequest) -> ttrpc::Result<Empty> {
        let process = answer(self.sandbox.process(&request.container_id, &request.exec_id))?;
        process.streams().close_stdin().await;
        Ok(Empty::new())
    }

    async fn tty_win_resize(&self, _: &TtrpcContext, request: TtyWinResizeRequest) -> ttrpc::Result<Empty> {
        let process = answer(self.sandbox.process(&request.container_id, &request.exec_id))?;
        done(process.streams().resize(cells(request.row), cells(request.column)).map_err(AgentError::from))
    }

    async fn get_metrics(&self, _: &TtrpcContext, _: GetMetricsRequest) -> ttrpc::Result<Metrics> {
        Ok(Metrics { metrics: metrics::scrape(), ..Default::default() })
    }

    async fn get_guest_details(
        &self,
        _: &TtrpcContext,
        request: GuestDetailsRequest,
    ) -> ttrpc::Result<GuestDetailsResponse> {
        Ok(guest::details(&request))
    }

    /// A pod VM has all its processors and memory from the start.
    async fn online_cpu_mem(&self, _: &TtrpcContext, _: OnlineCPUMemRequest) -> ttrpc::Result<Empty> {
        Ok(Empty::new())
    }

    async fn reseed_random_dev(
        &self,
        _: &TtrpcContext,
        request: ReseedRandomDevRequest,
    ) -> ttrpc::Result<Empty> {
        done(guest::reseed(&request.data))
    }

    async fn set_guest_date_time(
        &self,
        _: &TtrpcContext,
        request: SetGuestDateTimeRequest,
    ) -> ttrpc::Result<Empty> {
        done(guest::set_clock(request.Sec, request.Usec))
    }

    async fn copy_file(&self, _: &TtrpcContext, request: CopyFileRequest) -> ttrpc::Result<Empty> {
        done(copy_file::copy(&request, Path::new(copy_file::SHARED)).map_err(AgentError::from))
    }

    /// We watch for no such event, so the answer comes with the end of the sandbox.
    async fn get_oom_event(&self, _: &TtrpcContext, _: GetOOMEventRequest) -> ttrpc::Result<OOMEvent> {
        self.sandbox.ending().await;
        answer(Err(AgentError::Ending))
    }
}
