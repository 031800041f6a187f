use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, DuplexStream, ReadBuf, duplex};

use super::*;

type Side = Local<DuplexStream>;

/// A local side, and who is behind it.
fn local() -> (Side, DuplexStream) {
    let (ours, theirs) = duplex(256 * 1024);
    (Local::new(ours), theirs)
}

fn engine() -> Engine {
    let mut engine = Engine::default();
    engine.begin(0).unwrap();
    engine
}

fn bytes(records: &[Record<'_>]) -> BytesMut {
    let mut out = BytesMut::new();
    for record in records {
        record.emit(&mut out);
    }
    out
}

/// A connection that has these bytes to read and takes none, or fails at the first.
struct Deaf {
    to_read: VecDeque<u8>,
    on_write: Option<io::ErrorKind>,
    writes: Arc<AtomicUsize>,
}

impl Deaf {
    fn saying(records: &[Record<'_>], on_write: Option<io::ErrorKind>) -> Self {
        Self { to_read: bytes(records).to_vec().into(), on_write, writes: Arc::default() }
    }
}

impl AsyncRead for Deaf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.to_read.is_empty() {
            return Poll::Pending;
        }
        let part = into.remaining().min(self.to_read.len());
        into.put_slice(&self.to_read.drain(..part).collect::<Vec<_>>());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Deaf {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        match self.on_write {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Poll::Pending,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_confirmation_that_cannot_be_written_is_waited_for_and_not_asked_for_again_and_again() {
    let stream = Deaf::saying(&[Record::Data { position: 0, bytes: b"x" }], None);
    let writes = stream.writes.clone();
    let (mut local, mut agent) = local();
    agent.write_all(&[7; 100_000]).await.unwrap();
    let (mut wire, mut engine) = (Wire::new(stream), engine());
    let carried = carry(&mut wire, &mut engine, &mut local, Role::Far);
    let ended = timeout(Duration::from_secs(1), carried).await;
    assert!(ended.is_err(), "{ended:?}");
    let writes = writes.load(Ordering::Relaxed);
    assert!(writes < 1000, "a blocked connection was tried {writes} times in a second");
}

#[tokio::test]
async fn what_came_before_a_reset_is_handed_on() {
    for role in [Role::Near, Role::Far] {
        let said = [Record::Data { position: 0, bytes: b"last words" }, Record::Reset { reason: b"gone" }];
        let (mut local, mut peer) = local();
        let mut wire = Wire::new(Deaf::saying(&said, None));
        let ended = carry(&mut wire, &mut engine(), &mut local, role).await;
        assert!(matches!(&ended, End::Reset(why) if why == "gone"), "{ended:?}");
        drop(local);
        let mut got = Vec::new();
        peer.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"last words", "{role:?}");
    }
}

#[tokio::test]
async fn a_reset_is_heard_although_nothing_can_be_written_any_more() {
    let stream = Deaf::saying(&[Record::Reset { reason: b"gone" }], Some(io::ErrorKind::BrokenPipe));
    let (mut local, _peer) = local();
    let ended = carry(&mut Wire::new(stream), &mut engine(), &mut local, Role::Near).await;
    assert!(matches!(&ended, End::Reset(why) if why == "gone"), "{ended:?}");
}

#[tokio::test]
async fn the_last_words_are_all_that_was_left_to_say() {
    let (ours, mut theirs) = duplex(1 << 20);
    let mut engine = engine();
    engine.outgoing.push(&[7; 100_000]);
    Wire::new(ours).farewell(&mut engine, "over").await;
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).await.unwrap();
    let (mut rest, mut data, mut reason) = (&got[..], 0, None);
    while let Some((record, length)) = Record::parse(rest).unwrap() {
        match record {
            Record::Data { bytes, .. } => data += bytes.len(),
            Record::Reset { reason: why } => reason = Some(why.to_vec()),
            _ => {}
        }
        rest = &rest[length..];
    }
    assert_eq!((data, reason.as_deref()), (100_000, Some(&b"over"[..])));
}

#[tokio::test]
async fn a_reset_behind_all_that_may_be_under_way_is_heard_on_a_dead_connection() {
    let chunk = [7; 16_000];
    let mut said: Vec<_> = (0..32).map(|n| Record::Data { position: n * 16_000, bytes: &chunk }).collect();
    said.push(Record::Reset { reason: b"gone" });
    let stream = Deaf::saying(&said, Some(io::ErrorKind::BrokenPipe));
    let (mut local, mut shim) = local();
    let reading = tokio::spawn(async move { shim.read_to_end(&mut Vec::new()).await.unwrap() });
    let ended = carry(&mut Wire::new(stream), &mut engine(), &mut local, Role::Near).await;
    assert!(matches!(&ended, End::Reset(why) if why == "gone"), "{ended:?}");
    drop(local);
    assert_eq!(reading.await.unwrap(), 32 * 16_000);
}

#[tokio::test(start_paused = true)]
async fn a_day_of_silence_ends_no_connection_and_the_next_byte_arrives() {
    let (one, other) = duplex(64 * 1024);
    let ((mut near, mut shim), (mut far, mut agent)) = (local(), local());
    let (mut near_wire, mut near_engine) = (Wire::new(one), engine());
    let (mut far_wire, mut far_engine) = (Wire::new(other), engine());
    let talk = async {
        shim.write_all(b"a poll").await.unwrap();
        agent.read_exact(&mut [0; 6]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
        agent.write_all(b"its answer").await.unwrap();
        shim.read_exact(&mut [0; 10]).await.unwrap();
    };
    tokio::select! {
        ended = carry(&mut near_wire, &mut near_engine, &mut near, Role::Near) => panic!("near: {ended:?}"),
        ended = carry(&mut far_wire, &mut far_engine, &mut far, Role::Far) => panic!("far: {ended:?}"),
        () = talk => {}
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_stream_took_of_memory_is_kept_while_it_lasts_and_not_in_silence() {
    const STREAM: usize = 4 << 20;
    let (one, other) = duplex(64 * 1024);
    let ((mut near, mut shim), (mut far, mut agent)) = (local(), local());
    let (mut near_wire, mut near_engine) = (Wire::new(one), engine());
    let (mut far_wire, mut far_engine) = (Wire::new(other), engine());
    let talk = async {
        let read = async { agent.read_exact(&mut vec![0; STREAM]).await.unwrap() };
        let write = async { shim.write_all(&vec![7; STREAM]).await.unwrap() };
        tokio::join!(write, read);
    };
    tokio::select! {
        ended = carry(&mut near_wire, &mut near_engine, &mut near, Role::Near) => panic!("near: {ended:?}"),
        ended = carry(&mut far_wire, &mut far_engine, &mut far, Role::Far) => panic!("far: {ended:?}"),
        () = talk => {}
    }
    assert!(near_engine.outgoing.spare() > 0 && near_wire.out.capacity() > 0, "nothing was used again");
    tokio::select! {
        ended = carry(&mut near_wire, &mut near_engine, &mut near, Role::Near) => panic!("near: {ended:?}"),
        ended = carry(&mut far_wire, &mut far_engine, &mut far, Role::Far) => panic!("far: {ended:?}"),
        () = tokio::time::sleep(Duration::from_secs(60)) => {}
    }
    for (wire, engine) in [(near_wire, near_engine), (far_wire, far_engine)] {
        assert_eq!((engine.outgoing.spare(), engine.incoming.spare()), (0, 0));
        // What the last question and answer took, at most.
        assert!(
            wire.out.capacity() <= 64 && wire.read.capacity() <= 2 * CHUNK,
            "{} {}",
            wire.out.capacity(),
            wire.read.capacity()
        );
    }
}
