//! Frames by hand, and an agent that is a bare socket.

use peerpods_agentlink::frame::{HEADER_LEN, Header, Kind};
use peerpods_agentlink::{Link, LinkTarget};
use peerpods_proto::ttrpc::envelope::{Request, Response};
use peerpods_proto::ttrpc::health::CheckRequest;
use protobuf::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::support::{Guest, Sandbox};

pub(crate) fn frame(service: &str, method: &str, payload: Vec<u8>) -> Vec<u8> {
    let request =
        Request { service: service.to_owned(), method: method.to_owned(), payload, ..Request::default() };
    let body = request.write_to_bytes().unwrap();
    let length = u32::try_from(body.len()).unwrap();
    let mut bytes = Header { length, stream: 1, kind: Kind::Request, flags: 0 }.emit().to_vec();
    bytes.extend(body);
    bytes
}

pub(crate) fn health_frame() -> Vec<u8> {
    frame("grpc.Health", "Check", CheckRequest::new().write_to_bytes().unwrap())
}

pub(crate) async fn answer(shim: &mut UnixStream) -> Response {
    let mut header = [0; HEADER_LEN];
    shim.read_exact(&mut header).await.unwrap();
    let header = Header::parse(&header).unwrap();
    let mut body = vec![0; header.payload_len()];
    shim.read_exact(&mut body).await.unwrap();
    Response::parse_from_bytes(&body).unwrap()
}

/// A sandbox whose link is connected to a guest with a working agent.
pub(crate) async fn connected(guest: &Guest) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    sandbox.links.connect(&sandbox.spec, &guest.target()).await.unwrap();
    sandbox
}

/// A guest whose agent is a bare socket: answers the check, and hands over the next connection.
pub(crate) async fn bare_agent(guest: &Guest, sandbox: &Sandbox) -> (UnixStream, UnixStream) {
    bare_agent_at(guest, sandbox, &guest.target()).await
}

/// The same, reached another way.
pub(crate) async fn bare_agent_at(
    guest: &Guest,
    sandbox: &Sandbox,
    target: &LinkTarget,
) -> (UnixStream, UnixStream) {
    let listener = UnixListener::bind(&guest.agent_socket).unwrap();
    sandbox.links.open(&sandbox.spec).await.unwrap();
    let check = async {
        let (mut agent, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; health_frame().len()];
        agent.read_exact(&mut asked).await.unwrap();
        assert_eq!(asked, health_frame());
        let body = [0x12, 0x02, 0x08, 0x01];
        let header = Header { length: 4, stream: 1, kind: Kind::Response, flags: 0 };
        agent.write_all(&[&header.emit()[..], &body].concat()).await.unwrap();
        agent
    };
    let (held, connected) = tokio::join!(check, sandbox.links.connect(&sandbox.spec, target));
    connected.unwrap();
    let mut shim = sandbox.raw_shim().await;
    shim.write_all(&Header { length: 1, stream: 1, kind: Kind::Data, flags: 0 }.emit()).await.unwrap();
    shim.write_all(b"!").await.unwrap();
    let (mut agent, _) = listener.accept().await.unwrap();
    agent.read_exact(&mut [0; HEADER_LEN + 1]).await.unwrap();
    tokio::spawn(async move {
        let _held_until_the_far_end_closes = held.readable().await;
        std::future::pending::<()>().await;
    });
    (shim, agent)
}
