//! The first bytes of a connection to the hypervisor socket.
//!
//! Whoever speaks ttrpc gets the ttrpc server and whoever speaks HTTP/2 the gRPC server: a stream that begins with a whole frame header
//! that ttrpc allows is never taken for gRPC or closed, the preface of HTTP/2 always is gRPC, and nothing is both. The byte that was looked at
//! is still there: the server reads exactly what the client wrote.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use peerpods_agentlink::frame::Header;
use peerpods_hypervisor::fuzzing;

use super::Target;
use crate::input::in_real_time;

/// The target.
pub const TARGET: Target =
    Target { name: "first_byte", check, max_len: 64, memory: 1 << 16, memory_per_byte: 64 };

/// What a client of HTTP/2 says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection: the client's end, and the server's for us and for tokio.
struct Connection {
    client: UnixStream,
    server: UnixStream,
    looked_at: tokio::net::UnixStream,
}

thread_local! {
    static CONNECTION: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

fn connection() -> Connection {
    let (client, server) = UnixStream::pair().unwrap();
    let theirs = server.try_clone().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let looked_at = in_real_time(async { tokio::net::UnixStream::from_std(theirs).unwrap() });
    Connection { client, server, looked_at }
}

fn check(data: &[u8]) {
    let Some(first) = data.first() else { return };
    let grpc = fuzzing::speaks_grpc(*first);
    if let Some(header) = data.first_chunk()
        && Header::parse(header).is_ok()
    {
        assert_eq!(grpc, Some(false), "a ttrpc frame is sent elsewhere");
    }
    if data.starts_with(PREFACE) {
        assert_eq!(grpc, Some(true), "HTTP/2 is sent elsewhere");
    }
    CONNECTION.with_borrow_mut(|kept| {
        let Connection { client, server, looked_at } = kept.get_or_insert_with(connection);
        client.write_all(data).unwrap();
        let seen = in_real_time(async { fuzzing::first_byte(looked_at).await.unwrap() });
        assert_eq!(seen, Some(*first));
        let mut read = [0; TARGET.max_len];
        let read = read.get_mut(..data.len()).unwrap();
        server.read_exact(read).unwrap();
        assert_eq!(read, data, "looking took something away");
    });
}
