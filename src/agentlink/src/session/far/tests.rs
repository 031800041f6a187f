use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

use super::*;

const PATIENCE: Duration = Duration::from_secs(5);

fn sessions(detached: usize, patience: Duration) -> Arc<Sessions<DuplexStream>> {
    Sessions::new(Limits { patience, detached })
}

/// A connection that says HELLO.
async fn hello(
    sessions: &Arc<Sessions<DuplexStream>>,
    id: Id,
    turn: u32,
) -> (Wire<DuplexStream>, io::Result<Option<(Ticket<DuplexStream>, Attach<DuplexStream>)>>) {
    let (near, far) = tokio::io::duplex(4096);
    let mut near = Wire::new(near);
    near.say(&Record::Hello { id, turn, received: 0 });
    let mut flushing = near;
    let written = async {
        flushing.flush().await.unwrap();
        flushing
    };
    let (near, admitted) = tokio::join!(written, sessions.admit(far, PATIENCE));
    (near, admitted)
}

struct Living {
    id: Id,
    near: Wire<DuplexStream>,
    agent: DuplexStream,
    task: JoinHandle<Result<(), FarSessionError>>,
    stop: CancellationToken,
}

async fn living(sessions: &Arc<Sessions<DuplexStream>>) -> Living {
    let (near, admitted) = hello(sessions, Id::NEW, 1).await;
    let (ticket, first) = admitted.unwrap().unwrap();
    let id = ticket.id;
    let (ours, agent) = tokio::io::duplex(4096);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let task = tokio::spawn(async move { live(ticket, first, ours, &stopped).await });
    let mut living = Living { id, near, agent, task, stop };
    assert!(matches!(kind(&mut living.near).await, Kind::Welcome(given) if given == id));
    living
}

#[derive(Debug)]
enum Kind {
    Welcome(Id),
    Gone,
    Reset(String),
    Other,
}

async fn kind(near: &mut Wire<DuplexStream>) -> Kind {
    let read = near.first(|record| match *record {
        Record::Welcome { id, .. } => Kind::Welcome(id),
        Record::Gone => Kind::Gone,
        Record::Reset { reason } => Kind::Reset(String::from_utf8_lossy(reason).into_owned()),
        _ => Kind::Other,
    });
    timeout(PATIENCE, read).await.unwrap().unwrap()
}

async fn closed(near: &mut Wire<DuplexStream>) {
    while !matches!(timeout(PATIENCE, near.first(|_| ())).await.unwrap(), Err(e) if e.kind() == io::ErrorKind::UnexpectedEof)
    {
    }
}

#[tokio::test]
async fn ids_differ_and_no_log_shows_a_whole_one() {
    let (first, second) = (random_id().unwrap(), random_id().unwrap());
    assert!(first != second && first != Id::NEW);
    assert!(format!("{first:?}").len() < 10);
}

#[tokio::test]
async fn a_session_nobody_has_is_gone() {
    let sessions = sessions(4, PATIENCE);
    let (mut near, admitted) = hello(&sessions, Id([9; 16]), 2).await;
    assert!(admitted.unwrap().is_none());
    assert!(matches!(kind(&mut near).await, Kind::Gone));
}

#[tokio::test]
async fn a_newer_connection_takes_over_and_one_that_wakes_late_does_not() {
    let sessions = sessions(4, PATIENCE);
    let mut living = living(&sessions).await;
    let (mut third, _) = hello(&sessions, living.id, 3).await;
    assert!(matches!(kind(&mut third).await, Kind::Welcome(_)));
    closed(&mut living.near).await;
    let (mut second, _) = hello(&sessions, living.id, 2).await;
    closed(&mut second).await;
    third.say(&Record::Data { position: 0, bytes: b"over the third" });
    third.flush().await.unwrap();
    let mut got = [0; 14];
    timeout(PATIENCE, living.agent.read_exact(&mut got)).await.unwrap().unwrap();
    assert_eq!(&got, b"over the third");
}

#[tokio::test]
async fn a_first_record_that_is_no_hello_is_refused() {
    let sessions = sessions(4, PATIENCE);
    for bytes in [&b"\x06\0\0"[..], b"\xff\xff\xff\xff", b"\0\0\0\x14\0\0\0\x01\x01\0"] {
        let (mut near, far) = tokio::io::duplex(4096);
        near.write_all(bytes).await.unwrap();
        let refused = sessions.admit(far, PATIENCE).await;
        assert_eq!(refused.err().unwrap().kind(), io::ErrorKind::InvalidData);
    }
    let (_near, far) = tokio::io::duplex(4096);
    assert!(
        sessions.admit(far, Duration::from_millis(50)).await.is_err(),
        "silence is waited for without end"
    );
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_session_with_the_reason() {
    let sessions = sessions(4, PATIENCE);
    let mut living = living(&sessions).await;
    living.near.say(&Record::Ack { consumed: 77 });
    living.near.flush().await.unwrap();
    let ended = timeout(PATIENCE, living.task).await.unwrap().unwrap();
    assert!(matches!(ended, Err(FarSessionError::Violated(_))), "{ended:?}");
    let reason = loop {
        if let Kind::Reset(reason) = kind(&mut living.near).await {
            break reason;
        }
    };
    assert!(reason.contains("77"), "{reason}");
    assert!(sessions.table().is_empty());
}

#[tokio::test]
async fn a_session_nobody_takes_up_again_closes_the_agents_side() {
    let sessions = sessions(4, Duration::from_millis(100));
    let mut living = living(&sessions).await;
    drop(living.near);
    let ended = timeout(PATIENCE, living.task).await.unwrap().unwrap();
    assert!(matches!(ended, Err(FarSessionError::Forsaken(_))), "{ended:?}");
    assert_eq!(living.agent.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(sessions.table().is_empty());
}

#[tokio::test]
async fn sessions_that_wait_are_bounded_and_an_unused_one_goes_first() {
    let sessions = sessions(2, PATIENCE);
    let mut used = Vec::new();
    for _ in 0..2 {
        let mut one = living(&sessions).await;
        one.near.say(&Record::Data { position: 0, bytes: b"x" });
        one.near.flush().await.unwrap();
        one.agent.read_exact(&mut [0]).await.unwrap();
        drop(std::mem::replace(&mut one.near, Wire::new(tokio::io::duplex(1).0)));
        used.push(one);
    }
    let unused = living(&sessions).await;
    drop(unused.near);
    let ended = timeout(PATIENCE, unused.task).await.unwrap().unwrap();
    assert!(matches!(ended, Err(FarSessionError::Displaced)), "{ended:?}");
    assert_eq!(sessions.table().len(), 2);
    let (mut again, _) = hello(&sessions, used[0].id, 2).await;
    assert!(matches!(kind(&mut again).await, Kind::Welcome(_)));
}

#[tokio::test]
async fn a_far_end_that_is_told_to_stop_says_so() {
    let sessions = sessions(4, PATIENCE);
    let mut living = living(&sessions).await;
    living.stop.cancel();
    assert!(timeout(PATIENCE, living.task).await.unwrap().unwrap().is_ok());
    let reason = loop {
        if let Kind::Reset(reason) = kind(&mut living.near).await {
            break reason;
        }
    };
    assert!(reason.contains("closing"), "{reason}");
}
