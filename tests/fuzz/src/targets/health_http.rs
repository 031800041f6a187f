//! Requests to the health endpoints.
//!
//! Whatever a peer sends it gets one answer of a known status and a bounded length, or the connection is closed, and that within the connection's life.
//! Only a whole GET or HEAD request gets a 200.

use std::sync::Arc;
use std::time::Duration;

use peerpods::health::server::{Shown, answer_one};
use peerpods::health::{Check, Counts};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::Target;
use crate::input::{Input, in_virtual_time};

/// The target.
pub const TARGET: Target =
    Target { name: "health_http", check, max_len: 512, memory: 1 << 18, memory_per_byte: 64 };

fn check(data: &[u8]) {
    let mut input = Input(data);
    let hangs_up = input.byte() & 1 == 1;
    let request = input.rest();
    let answer = in_virtual_time(async {
        let (mut client, server) = duplex(16 * 1024);
        client.write_all(request).await.unwrap();
        if hangs_up {
            client.shutdown().await.unwrap();
        }
        let checks = vec![Check::new("serving", Counts::Live, || Ok(()))];
        let shown = Arc::new(Shown { checks, ..Shown::default() });
        let began = tokio::time::Instant::now();
        answer_one(server, shown).await;
        assert!(began.elapsed() <= Duration::from_secs(6), "a connection outlives its time");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        answer
    });
    assert!(answer.len() < 1024, "{} bytes of answer", answer.len());
    let Some(status) = answer.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5)) else {
        return assert!(answer.is_empty(), "no HTTP: {:?}", String::from_utf8_lossy(&answer));
    };
    match status {
        b"200" => assert!(request.windows(4).any(|w| w == b"GET " || w == b"EAD "), "an answer to no request"),
        b"400" | b"404" | b"405" | b"414" | b"431" | b"408" | b"413" | b"501" | b"505" => {}
        other => panic!("the status {}", String::from_utf8_lossy(other)),
    }
}
