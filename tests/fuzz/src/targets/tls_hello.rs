//! What a peer says before it has proved anything: bytes for the TLS server of the guest's end.
//!
//! No bytes finish a handshake (a client certificate is asked for, and these inputs hold no key), none make the server hold more than a record or two, and what it answers
//! is bounded. The rest is rustls's own affair.

use std::io::Cursor;
use std::sync::{Arc, OnceLock};

use peerpods_agentlink::ca::ClusterCa;
use peerpods_agentlink::tls::{FarKeys, MinVersion, far_server};
use rustls::{ServerConfig, ServerConnection};

use super::Target;

/// The target.
pub const TARGET: Target =
    Target { name: "tls_hello", check, max_len: 640, memory: 1 << 18, memory_per_byte: 64 };

fn server() -> Arc<ServerConfig> {
    static SERVER: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    SERVER
        .get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            let ca = ClusterCa::load_or_create(&dir.path().join("ca")).unwrap();
            let pair = ca.issue_server("podvm-fuzz").unwrap();
            let keys = FarKeys {
                certificate: &pair.certificate,
                key: pair.expose_key(),
                client_ca: ca.certificate_pem(),
            };
            far_server(keys, MinVersion::Tls12).unwrap()
        })
        .clone()
}

fn check(data: &[u8]) {
    let mut connection = ServerConnection::new(server()).unwrap();
    let mut from = Cursor::new(data);
    let mut answer = Vec::new();
    while connection.wants_read() && connection.read_tls(&mut from).is_ok_and(|read| read > 0) {
        if connection.process_new_packets().is_err() {
            break;
        }
    }
    while connection.wants_write() && connection.write_tls(&mut answer).is_ok_and(|written| written > 0) {}
    assert!(connection.is_handshaking(), "a handshake without a key");
    assert!(answer.len() < 8192, "{} bytes of answer", answer.len());
}
