//! Much at once: files copied chunk by chunk, and messages as long as the protocol allows, and longer.
//!
//! `PEERPODS_LINK_COPY_MIB` sets how much is copied (64); `make link-load` copies 1 GiB.

use peerpods_agentlink::Link;
use peerpods_agentlink::frame::{HEADER_LEN, MAX_PAYLOAD};
use peerpods_proto::ttrpc::agent::{CopyFileRequest, ReadStreamRequest, ReadStreamResponse};
use peerpods_proto::ttrpc::agent_ttrpc::AgentServiceClient;
use protobuf::Message;
use tokio::io::AsyncWriteExt;

use super::scripted::{Scripted, answer_call, next_call};
use super::support::{Guest, within};
use super::wire::{answer, connected, frame, health_frame};

const CHUNK: usize = 1 << 20;

/// Bytes that differ everywhere, and their checksum (FNV-1a over eight at a time).
struct Content(u64, u64);

impl Content {
    fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15, 0xcbf2_9ce4_8422_2325)
    }

    fn next(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; CHUNK];
        for eight in bytes.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            eight.copy_from_slice(&self.0.to_le_bytes());
        }
        self.add(&bytes);
        bytes
    }

    fn add(&mut self, bytes: &[u8]) {
        for eight in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..eight.len()].copy_from_slice(eight);
            self.1 = (self.1 ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_copied_in_chunks_and_its_checksum_is_right() {
    let chunks = std::env::var("PEERPODS_LINK_COPY_MIB").map_or(64, |mib| mib.parse::<usize>().unwrap());
    for guest in [Guest::on().await, Guest::stock().await] {
        let scripted = Scripted::behind(&guest).await;
        let client = AgentServiceClient::new(scripted.sandbox.shim().await);
        let (mut said, mut heard) = (Content::new(), Content::new());
        let shim = async {
            for number in 0..chunks {
                let request = CopyFileRequest {
                    path: "/run/kata-containers/shared/containers/file".to_owned(),
                    offset: i64::try_from(number * CHUNK).unwrap(),
                    data: said.next(),
                    ..Default::default()
                };
                client.copy_file(within(60), &request).await.unwrap();
            }
        };
        let agent = async {
            let mut agent = scripted.accept().await;
            for number in 0..chunks {
                let (stream, call) = next_call(&mut agent).await.unwrap();
                let copied = CopyFileRequest::parse_from_bytes(&call.payload).unwrap();
                assert_eq!(copied.offset, i64::try_from(number * CHUNK).unwrap());
                heard.add(&copied.data);
                answer_call(&mut agent, stream, Vec::new()).await;
            }
        };
        tokio::join!(shim, agent);
        assert_eq!(said.1, heard.1, "the content differs");
    }
}

/// A CopyFile request whose payload has this length.
fn copy_of(payload: usize) -> Vec<u8> {
    let sized = |data: usize| {
        let copy = CopyFileRequest { data: vec![7; data], ..Default::default() };
        frame("grpc.AgentService", "CopyFile", copy.write_to_bytes().unwrap())
    };
    let overhead = sized(4_000_000).len() - HEADER_LEN - 4_000_000;
    let request = sized(payload - overhead);
    assert_eq!(request.len(), HEADER_LEN + payload);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_one_byte_too_long_fails_its_own_call_and_no_other() {
    for guest in [Guest::on().await, Guest::stock().await] {
        let agent = guest.agent().await;
        let sandbox = connected(&guest).await;
        let mut shim = sandbox.raw_shim().await;
        shim.write_all(&copy_of(MAX_PAYLOAD)).await.unwrap();
        assert_eq!(answer(&mut shim).await.status.code, 0);
        shim.write_all(&copy_of(MAX_PAYLOAD + 1)).await.unwrap();
        let refused = answer(&mut shim).await.status;
        assert!(refused.code != 0 && refused.message.contains("exceed"), "{refused:?}");
        assert_eq!(agent.asked.copied.lock().unwrap().len(), 1, "it was taken");
        // The first stream's number would be used up for a real shim; the agent does not mind.
        shim.write_all(&health_frame()).await.unwrap();
        assert_eq!(answer(&mut shim).await.status.code, 0, "the connection did not live on");
        sandbox.links.close(&sandbox.spec).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_answer_and_one_that_is_too_long_come_as_the_agent_sent_them() {
    for guest in [Guest::on().await, Guest::stock().await] {
        let scripted = Scripted::behind(&guest).await;
        let client = AgentServiceClient::new(scripted.sandbox.shim().await);
        let overhead = ReadStreamResponse { data: vec![0; 4_000_000], ..Default::default() }.compute_size();
        let overhead = usize::try_from(overhead).unwrap() - 4_000_000;
        // Response wraps it once more: a tag and a length of four bytes.
        let longest = MAX_PAYLOAD - overhead - 5;
        let agent = async {
            let mut agent = scripted.accept().await;
            for data in [longest, longest + 1, 10] {
                let (stream, _) = next_call(&mut agent).await.unwrap();
                let answer = ReadStreamResponse { data: vec![9; data], ..Default::default() };
                answer_call(&mut agent, stream, answer.write_to_bytes().unwrap()).await;
            }
            agent
        };
        let shim = async {
            let mut read = Vec::new();
            for _ in 0..3 {
                let request = ReadStreamRequest::default();
                read.push(client.read_stdout(within(30), &request).await.map(|read| read.data.len()));
            }
            read
        };
        let (_agent, read) = tokio::join!(agent, shim);
        assert_eq!((read[0].as_ref().unwrap(), read[2].as_ref().unwrap()), (&longest, &10));
        assert!(read[1].is_err(), "ttrpc takes more than it says");
    }
}
