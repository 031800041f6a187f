//! Many calls in flight, answered in any order or not for long; and ends of one direction only.

use std::time::Duration;

use peerpods_agentlink::frame::HEADER_LEN;
use peerpods_proto::ttrpc::agent::{ReadStreamRequest, ReadStreamResponse};
use peerpods_proto::ttrpc::agent_ttrpc::AgentServiceClient;
use protobuf::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::scripted::{Scripted, answer_call, data, next_call};
use super::support::{Guest, within};

const LONG: Duration = Duration::from_secs(60);
const CALLS: u32 = 600;

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_calls_on_one_connection_are_answered_in_any_order() {
    for guest in [Guest::on().await, Guest::stock().await] {
        let scripted = Scripted::behind(&guest).await;
        let shim = scripted.sandbox.shim().await;
        let client = AgentServiceClient::new(shim);
        let agent = async {
            let mut agent = scripted.accept().await;
            let mut calls = Vec::new();
            for _ in 0..CALLS {
                let (stream, call) = next_call(&mut agent).await.unwrap();
                let asked = ReadStreamRequest::parse_from_bytes(&call.payload).unwrap();
                calls.push((stream, asked));
            }
            // All are there, and not one has its answer.
            fastrand::Rng::with_seed(7).shuffle(&mut calls);
            for (stream, asked) in calls {
                // Small ones and some that take many records.
                let length = if asked.len % 50 == 0 { 300_000 } else { 20 };
                let data = asked.len.to_be_bytes().into_iter().cycle().take(length).collect();
                let answer = ReadStreamResponse { data, ..Default::default() };
                answer_call(&mut agent, stream, answer.write_to_bytes().unwrap()).await;
            }
            agent
        };
        let asked = (0..CALLS).map(|len| {
            let client = client.clone();
            async move {
                let request = ReadStreamRequest { len, ..Default::default() };
                let data = client.read_stdout(within(60), &request).await.unwrap().data;
                assert!(data.chunks(4).all(|four| four == &len.to_be_bytes()[..four.len()]), "call {len}");
            }
        });
        let both = async { tokio::join!(agent, futures::future::join_all(asked)) };
        timeout(LONG, both).await.expect("calls wait for one another");
    }
}

/// Longer than the link ever waits on a connection that works: it asks after 5 s, gives up after 3 s more, the far end after 20 s. Days are
/// played through in `session/carry/tests.rs`, on a clock that leaps.
const LONGER_THAN_ANY_LIMIT: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_and_a_silent_connection_outlast_every_limit_of_the_link() {
    let one = async |guest: Guest| {
        let scripted = Scripted::behind(&guest).await;
        let (mut idle_shim, mut idle_agent) = scripted.pair().await;
        let client = AgentServiceClient::new(scripted.sandbox.shim().await);
        let (request, context) =
            (ReadStreamRequest { len: 1, ..Default::default() }, ttrpc::context::Context::default());
        let poll = client.read_stdout(context, &request);
        let answer = async {
            let mut agent = scripted.accept().await;
            let (stream, _) = next_call(&mut agent).await.unwrap();
            sleep(LONGER_THAN_ANY_LIMIT).await;
            let answer = ReadStreamResponse { data: b"late".to_vec(), ..Default::default() };
            answer_call(&mut agent, stream, answer.write_to_bytes().unwrap()).await;
            agent
        };
        let (polled, _agent) = tokio::join!(poll, answer);
        assert_eq!(polled.unwrap().data, b"late");
        idle_agent.write_all(b"x").await.unwrap();
        assert_eq!(idle_shim.read_u8().await.unwrap(), b'x');
        idle_shim.write_all(&data(1)).await.unwrap();
        idle_agent.read_exact(&mut [0; HEADER_LEN + 1]).await.unwrap();
        let log = std::fs::read_to_string(scripted.sandbox.dir.join("link.log")).unwrap();
        // A session's connection may be replaced by a link that got no turn for three seconds; nobody notices.
        assert!(!log.contains("closed"), "{log}");
    };
    let (session, plain) = (Guest::on().await, Guest::stock().await);
    tokio::join!(one(session), one(plain));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_will_say_no_more_ends_the_connection_after_what_is_under_way() {
    for guest in [Guest::on().await, Guest::stock().await] {
        let scripted = Scripted::behind(&guest).await;
        let (mut shim, mut agent) = scripted.pair().await;
        agent.write_all(&data(100_000)).await.unwrap();
        agent.shutdown().await.unwrap();
        let mut heard = Vec::new();
        let ended =
            timeout(LONG, shim.read_to_end(&mut heard)).await.expect("the agent's end does not arrive");
        ended.unwrap();
        assert!(heard == data(100_000));
        // The other direction goes on for a while: a grace for what was under way, and no longer.
        shim.write_all(&data(1000)).await.unwrap();
        let mut read = vec![0; HEADER_LEN + 1000];
        timeout(LONG, agent.read_exact(&mut read)).await.expect("the shim's direction ended too").unwrap();
        let since = Instant::now();
        assert_eq!(timeout(LONG, agent.read(&mut [0; 8])).await.unwrap().unwrap_or(0), 0);
        assert!(since.elapsed() < Duration::from_secs(30));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_says_all_and_half_closes_gets_every_answer_whoever_ends_first() {
    for guest in [Guest::on().await, Guest::stock().await] {
        let scripted = Scripted::behind(&guest).await;
        let (shim, agent) = scripted.pair().await;
        let (mut from_link, mut to_link) = shim.into_split();
        let (mut from_shim, mut to_shim) = agent.into_split();
        let much = data(3_000_000);
        let (mut said, mut heard) = (Vec::new(), vec![0; much.len()]);
        let all = async {
            tokio::join!(
                async {
                    to_link.write_all(&much).await.unwrap();
                    to_link.shutdown().await.unwrap();
                },
                async { to_shim.write_all(&much).await.unwrap() },
                async { from_shim.read_to_end(&mut said).await.unwrap() },
                async { from_link.read_exact(&mut heard).await.unwrap() },
            )
        };
        timeout(LONG, all).await.expect("one direction waits for the other");
        assert!(said == much && heard == much);
        to_shim.write_all(b"!").await.unwrap();
        assert_eq!(
            timeout(LONG, from_link.read_u8()).await.unwrap().unwrap(),
            b'!',
            "answers ended with the questions"
        );
        drop((from_shim, to_shim));
        assert_eq!(timeout(LONG, from_link.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    }
}
