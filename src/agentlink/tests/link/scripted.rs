//! An agent that does what a test tells it: frames are read and answered by hand, in any order, or never.

use peerpods_agentlink::frame::{HEADER_LEN, Header, Kind};
use peerpods_agentlink::{Link, LinkTarget};
use peerpods_proto::ttrpc::envelope::{Request, Response};
use protobuf::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::support::{Guest, Sandbox};

/// A link to a guest whose agent is told what to do.
pub(crate) struct Scripted {
    pub(crate) sandbox: Sandbox,
    agent: UnixListener,
    /// The connection the check was answered on.
    _held: UnixStream,
}

impl Scripted {
    pub(crate) async fn behind(guest: &Guest) -> Self {
        Self::at(guest, &guest.target()).await
    }

    /// The same, reached another way.
    pub(crate) async fn at(guest: &Guest, target: &LinkTarget) -> Self {
        let sandbox = Sandbox::new();
        let agent = UnixListener::bind(&guest.agent_socket).unwrap();
        sandbox.links.open(&sandbox.spec).await.unwrap();
        let check = async {
            let mut held = agent.accept().await.unwrap().0;
            let (stream, _) = next_call(&mut held).await.unwrap();
            answer_call(&mut held, stream, vec![0x08, 0x01]).await;
            held
        };
        let (held, connected) = tokio::join!(check, sandbox.links.connect(&sandbox.spec, target));
        connected.unwrap();
        Self { sandbox, agent, _held: held }
    }

    /// A connection of the shim that has said its first frame, and the agent's end of it.
    pub(crate) async fn pair(&self) -> (UnixStream, UnixStream) {
        let mut shim = self.sandbox.raw_shim().await;
        shim.write_all(&data(1)).await.unwrap();
        let mut agent = self.accept().await;
        agent.read_exact(&mut [0; HEADER_LEN + 1]).await.unwrap();
        (shim, agent)
    }

    /// The agent's end of the next connection that says something.
    pub(crate) async fn accept(&self) -> UnixStream {
        self.agent.accept().await.unwrap().0
    }
}

/// A DATA frame with so many bytes.
pub(crate) fn data(length: usize) -> Vec<u8> {
    let header = Header { length: u32::try_from(length).unwrap(), stream: 3, kind: Kind::Data, flags: 0 };
    [&header.emit()[..], &vec![0x5a; length]].concat()
}

/// The next frame's stream and payload; none at the end.
pub(crate) async fn next_frame(from: &mut (impl AsyncRead + Unpin)) -> Option<(u32, Vec<u8>)> {
    let mut header = [0; HEADER_LEN];
    from.read_exact(&mut header).await.ok()?;
    let [a, b, c, d, rest @ ..] = header;
    let stream = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]);
    let mut payload = vec![0; u32::from_be_bytes([a, b, c, d]) as usize];
    from.read_exact(&mut payload).await.ok()?;
    Some((stream, payload))
}

/// The next call, and its stream; none at the end.
pub(crate) async fn next_call(from: &mut (impl AsyncRead + Unpin)) -> Option<(u32, Request)> {
    let (stream, payload) = next_frame(from).await?;
    Some((stream, Request::parse_from_bytes(&payload).unwrap()))
}

/// A good answer.
pub(crate) async fn answer_call(to: &mut (impl AsyncWrite + Unpin), stream: u32, payload: Vec<u8>) {
    let body = Response { payload, ..Response::default() }.write_to_bytes().unwrap();
    let header =
        Header { length: u32::try_from(body.len()).unwrap(), stream, kind: Kind::Response, flags: 0 };
    to.write_all(&[&header.emit()[..], &body].concat()).await.unwrap();
}
