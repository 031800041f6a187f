use peerpods_proto::ttrpc::agent::CreateSandboxRequest;
use peerpods_proto::ttrpc::envelope::Request;
use proptest::prelude::*;
use protobuf::Message;
use tokio::io::AsyncWriteExt;

use super::*;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let mut bytes = Header { length, stream: 3, kind: Kind::Request, flags }.emit().to_vec();
    bytes[8] = kind;
    bytes.extend_from_slice(payload);
    bytes
}

fn call(method: &str, payload: Vec<u8>) -> Vec<u8> {
    let (service, method) = ("grpc.AgentService".to_owned(), method.to_owned());
    frame(1, 0, &Request { service, method, payload, ..Request::default() }.write_to_bytes().unwrap())
}

/// A request that is rewritten, and what becomes of it.
fn sandbox(dns: usize) -> (Vec<u8>, Vec<u8>) {
    let asked = |dns| CreateSandboxRequest { hostname: "h".to_owned(), dns, ..Default::default() };
    let bytes = |dns| call("CreateSandbox", asked(dns).write_to_bytes().unwrap());
    (bytes(vec!["nameserver 10.0.0.1".to_owned(); dns]), bytes(Vec::new()))
}

/// What arrives of bytes that come in pieces of these sizes, and how it ended.
async fn forwarded(bytes: &[u8], sizes: &[usize]) -> (Vec<u8>, io::Result<()>) {
    let mut to = ToAgent::new(Vec::new(), "/n");
    let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
    let mut ended = Ok(());
    while !rest.is_empty() && ended.is_ok() {
        let (now, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        ended = to.write_all(now).await;
        rest = later;
    }
    if ended.is_ok() {
        ended = to.shutdown().await;
    }
    (to.agent, ended)
}

/// Frames of several kinds, and what the agent is to get of them.
fn conversation(kinds: Vec<(u8, usize)>) -> (Vec<u8>, Vec<u8>) {
    let (mut said, mut expected) = (Vec::new(), Vec::new());
    for (kind, size) in kinds {
        let same = |frame: Vec<u8>| (frame.clone(), frame);
        let (ours, theirs) = match kind {
            0 => same(frame(3, 0, &vec![7; size])),
            1 => same(frame(1, 0, &vec![0x0a; size])),
            2 => same(call("CopyFile", vec![9; size])),
            _ => sandbox(size / 20),
        };
        said.extend(ours);
        expected.extend(theirs);
    }
    (said, expected)
}

/// An agent that takes so many bytes at a time, and for zero nothing until it is asked again.
struct Stingy {
    got: Vec<u8>,
    takes: Vec<usize>,
    at: usize,
}

impl AsyncWrite for Stingy {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let most = self.takes[self.at % self.takes.len()].min(bytes.len());
        self.at += 1;
        if most == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.got.extend_from_slice(&bytes[..most]);
        Poll::Ready(Ok(most))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write(cx, &parts.iter().flat_map(|part| part.to_vec()).collect::<Vec<u8>>())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What arrives of bytes that are handed over in blocks, one by one or several at once, by whoever goes on where a write ended.
async fn written(bytes: &[u8], blocks: &[usize], agent: Stingy, vectored: bool) -> (Vec<u8>, io::Result<()>) {
    let mut to = ToAgent::new(agent, "/n");
    let (mut rest, mut ended) = (bytes, Ok(0));
    while !rest.is_empty() && ended.is_ok() {
        let mut left = rest;
        let parts: Vec<IoSlice<'_>> = blocks
            .iter()
            .map(|block| {
                let (part, later) = left.split_at((*block).min(left.len()));
                left = later;
                IoSlice::new(part)
            })
            .collect();
        ended = if vectored { to.write_vectored(&parts).await } else { to.write(&parts[0]).await };
        rest = &rest[ended.as_ref().map_or(0, |went| *went)..];
    }
    let ended = match ended {
        Ok(_) => to.shutdown().await,
        Err(error) => Err(error),
    };
    (to.agent.got, ended)
}

fn reason(ended: &io::Result<()>) -> String {
    ended.as_ref().unwrap_err().to_string()
}

#[tokio::test]
async fn streams_odd_flags_and_empty_frames_pass_unchanged() {
    let mut bytes = frame(3, 0xf7, b"data");
    bytes.extend(frame(1, 0x02, b""));
    bytes.extend(frame(2, 0x04, b"x"));
    bytes.extend(frame(1, 0, &[0xff; 30]));
    let (out, ended) = forwarded(&bytes, &[usize::MAX]).await;
    assert!(ended.is_ok());
    assert_eq!(out, bytes);
}

#[tokio::test]
async fn an_end_inside_a_frame_is_an_error() {
    let bytes = frame(1, 0, b"\x0a\x11grpc.AgentService");
    for cut in [1, 9, 10, 15, bytes.len() - 1] {
        let (_, ended) = forwarded(&bytes[..cut], &[usize::MAX]).await;
        assert!(reason(&ended).contains("inside a frame"), "cut at {cut}: {ended:?}");
    }
}

#[tokio::test]
async fn garbage_after_a_good_frame_is_an_error_and_the_good_frame_arrived() {
    let good = frame(3, 0, b"data");
    let mut bytes = good.clone();
    bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
    let (out, ended) = forwarded(&bytes, &[usize::MAX]).await;
    assert!(reason(&ended).contains("no ttrpc frame"), "{ended:?}");
    assert_eq!(out, good);
}

#[test]
fn many_small_frames_pass_at_once_and_nothing_is_held() {
    let mut frames = Frames { netns: String::new(), left: 0, held: Vec::new() };
    let bytes = [call("WaitProcess", vec![1; 50]).repeat(100), call("CopyFile", vec![2; 1 << 20])].concat();
    let seen = &bytes[..20_000];
    assert_eq!(frames.offer(seen), Ok(Offer::Pass(20_000)));
    frames.passed(seen, 20_000);
    assert_eq!(frames.left, bytes.len() - 20_000);
    assert_eq!(frames.held.capacity(), 0);
}

proptest! {
    #[test]
    fn however_bytes_come_the_agent_gets_the_same(
        kinds in prop::collection::vec((0u8..5, 0usize..3000), 1..12),
        sizes in prop::collection::vec(prop_oneof![1usize..20, 1usize..5000], 1..8),
    ) {
        let (said, expected) = conversation(kinds);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (out, ended) = runtime.block_on(forwarded(&said, &sizes));
        prop_assert!(ended.is_ok(), "{:?}", ended);
        prop_assert!(out == expected);
    }

    #[test]
    fn an_agent_that_takes_little_at_a_time_gets_the_same(
        kinds in prop::collection::vec((0u8..5, 0usize..3000), 1..12),
        blocks in prop::collection::vec(1usize..9000, 1..8),
        takes in prop::collection::vec(0usize..4000, 1..8),
    ) {
        prop_assume!(takes.iter().any(|takes| *takes > 0));
        let (said, expected) = conversation(kinds);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for vectored in [false, true] {
            let agent = Stingy { got: Vec::new(), takes: takes.clone(), at: 0 };
            let (got, ended) = runtime.block_on(written(&said, &blocks, agent, vectored));
            prop_assert!(ended.is_ok(), "{:?}", ended);
            prop_assert!(got == expected, "vectored: {vectored}");
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, cut in any::<prop::sample::Index>()) {
        let mut frames = Frames { netns: String::new(), left: 0, held: Vec::new() };
        if let Ok(Offer::Pass(most)) = frames.offer(&bytes) {
            prop_assert!(most >= 1 && most <= bytes.len());
            frames.passed(&bytes, 1 + cut.index(most));
        }
    }
}
