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
        let (mut said, mut expected) = (Vec::new(), Vec::new());
        for (kind, size) in kinds {
            let (ours, theirs) = match kind {
                0 => { let f = frame(3, 0, &vec![7; size]); (f.clone(), f) }
                1 => { let f = frame(1, 0, &vec![0x0a; size]); (f.clone(), f) }
                2 => { let f = call("CopyFile", vec![9; size]); (f.clone(), f) }
                _ => sandbox(size / 20),
            };
            said.extend(ours);
            expected.extend(theirs);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (out, ended) = runtime.block_on(forwarded(&said, &sizes));
        prop_assert!(ended.is_ok(), "{:?}", ended);
        prop_assert!(out == expected);
    }

    #[test]
    fn no_bytes_panic_and_a_cut_write_is_gone_on_with(bytes: Vec<u8>, went in prop::collection::vec(any::<prop::sample::Index>(), 1..9)) {
        let mut frames = Frames { netns: String::new(), left: 0, held: Vec::new() };
        let mut rest = &bytes[..];
        for cut in went {
            if rest.is_empty() { break }
            match frames.offer(rest) {
                Ok(Offer::Pass(n)) => {
                    prop_assert!(n >= 1 && n <= rest.len());
                    let went = 1 + cut.index(n);
                    frames.passed(rest, went);
                    rest = &rest[went..];
                }
                Ok(Offer::Taken(n, _)) => {
                    prop_assert!(n >= 1);
                    rest = &rest[n..];
                }
                Err(_) => break,
            }
        }
    }
}
