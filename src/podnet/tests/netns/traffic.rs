//! Packets between two namespaces, whatever lies between.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::bed::{on, run};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Sends `size` patterned bytes from one namespace to an echo server in another and compares what comes back.
pub(crate) fn tcp_echo(client: &str, server: &str, server_ip: &str, size: usize) {
    let listener = on(server, || TcpListener::bind((address(server_ip), 0)).unwrap());
    let address: SocketAddr = listener.local_addr().unwrap();
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = stream.try_clone().unwrap();
        std::io::copy(&mut reader, &mut stream).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    });
    let sent: Vec<u8> = (0..size).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut stream = on(client, || TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap());
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let received = std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received
    });
    echo.join().unwrap();
    assert!(received == sent, "{} of {} bytes came back, or others", received.len(), sent.len());
}

/// Sends one datagram of `size` bytes and has it sent back; larger than the MTU it goes in fragments, there and back.
pub(crate) fn udp_echo(client: &str, server: &str, server_ip: &str, size: usize) -> bool {
    let any = |ip: &str| if address(ip).is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let serving = on(server, || UdpSocket::bind((address(server_ip), 0)).unwrap());
    let asking = on(client, || UdpSocket::bind(any(server_ip)).unwrap());
    for socket in [&serving, &asking] {
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    }
    let sent: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
    let mut buffer = vec![0; 65_536];
    // The first try may find out the path's MTU at the cost of a datagram.
    (0..3).any(|_| {
        drop(asking.send_to(&sent, serving.local_addr().unwrap()));
        let Ok((length, from)) = serving.recv_from(&mut buffer) else { return false };
        drop(serving.send_to(&buffer[..length], from));
        let Ok((length, _)) = asking.recv_from(&mut buffer) else { return false };
        buffer[..length] == sent
    })
}

/// An echo request that fills a packet of `size` bytes, headers included, and must not be cut up.
pub(crate) fn whole_ping(from: &str, to: &str, size: u32, tries: usize) -> bool {
    let headers = if address(to).is_ipv4() { 28 } else { 48 };
    let content = (size - headers).to_string();
    let args = ["netns", "exec", from, "ping", "-n", "-c1", "-W1", "-M", "do", "-s", &content, to];
    (0..tries).any(|_| run("ip", &args).status.success())
}
