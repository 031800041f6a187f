//! A small load generator: sinks, a source and an echo inside a network namespace, and the client that counts what gets there. Blocking
//! threads and plain sockets, so that nothing but the path is measured.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use super::Samples;

const SINK: u16 = 7001;
const SOURCE: u16 = 7002;
const ECHO: u16 = 7003;
const DATAGRAMS: u16 = 7004;
/// Of one write or read.
const CHUNK: usize = 256 * 1024;
/// Fits the smallest MTU of the paths compared.
const DATAGRAM: usize = 1400;

/// What listens in a namespace, to the end of the process.
#[derive(Debug)]
pub struct Listening {
    address: Ipv4Addr,
    received: Arc<AtomicU64>,
}

/// Which way the bytes go, as the client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the namespace.
    There,
    /// From it.
    Back,
}

#[expect(clippy::missing_panics_doc, reason = "the test framework fails the test")]
impl Listening {
    /// Listens in the namespace, which can be reached at `address`.
    #[must_use]
    pub fn in_netns(netns: File, address: Ipv4Addr) -> Self {
        let received = Arc::<AtomicU64>::default();
        let counter = received.clone();
        let set_up = move || {
            setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
            serve(SINK, counter.clone(), sink);
            serve(SOURCE, counter.clone(), source);
            serve(ECHO, counter.clone(), echo);
            let datagrams = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, DATAGRAMS)).unwrap();
            std::thread::spawn(move || count_datagrams(&datagrams, &counter));
        };
        std::thread::spawn(set_up).join().unwrap();
        Self { address, received }
    }

    fn at(&self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }

    /// MiB a second over `streams` TCP connections.
    #[must_use]
    pub fn tcp(&self, way: Way, streams: usize, span: Duration) -> f64 {
        let before = self.received.load(Ordering::SeqCst);
        let began = Instant::now();
        let read = std::thread::scope(|scope| {
            let one = || match way {
                Way::There => send_until(self.at(SINK), began + span),
                Way::Back => read_until(self.at(SOURCE), began + span),
            };
            let streams: Vec<_> = (0..streams).map(|_| scope.spawn(one)).collect();
            streams.into_iter().map(|stream| stream.join().unwrap().unwrap()).sum::<u64>()
        });
        let bytes = match way {
            Way::There => self.received.load(Ordering::SeqCst) - before,
            Way::Back => read,
        };
        mib(bytes) / began.elapsed().as_secs_f64()
    }

    /// MiB a second of UDP that arrive, sent as fast as one thread can.
    #[must_use]
    pub fn udp(&self, span: Duration) -> f64 {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.connect(self.at(DATAGRAMS)).unwrap();
        let before = self.received.load(Ordering::SeqCst);
        let began = Instant::now();
        while began.elapsed() < span {
            for _ in 0..64 {
                // A full queue is what is looked for.
                let _full = socket.send(&[0; DATAGRAM]);
            }
        }
        mib(self.received.load(Ordering::SeqCst) - before) / began.elapsed().as_secs_f64()
    }

    /// Adds `n` round trips of one byte over a standing TCP connection.
    pub fn round_trips(&self, n: usize, samples: &mut Samples) {
        let mut stream = TcpStream::connect(self.at(ECHO)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut byte = [0; 1];
        for _ in 0..n {
            let began = Instant::now();
            stream.write_all(&byte).unwrap();
            stream.read_exact(&mut byte).unwrap();
            samples.took(began.elapsed());
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53 bytes")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

type Serve = fn(TcpStream, &AtomicU64) -> io::Result<()>;

/// A thread for each connection; the listener is made on the calling thread, in its namespace.
fn serve(port: u16, counter: Arc<AtomicU64>, one: Serve) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let counter = counter.clone();
            // How a connection ends is the client's matter.
            std::thread::spawn(move || one(stream, &counter));
        }
    });
}

fn sink(mut stream: TcpStream, counter: &AtomicU64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        counter.fetch_add(read as u64, Ordering::SeqCst);
    }
}

fn source(mut stream: TcpStream, _: &AtomicU64) -> io::Result<()> {
    let chunk = vec![0; CHUNK];
    loop {
        stream.write_all(&chunk)?;
    }
}

fn echo(mut stream: TcpStream, _: &AtomicU64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0; 1];
    loop {
        stream.read_exact(&mut byte)?;
        stream.write_all(&byte)?;
    }
}

fn count_datagrams(socket: &UdpSocket, counter: &AtomicU64) {
    let mut datagram = [0; 2 * DATAGRAM];
    while let Ok(read) = socket.recv(&mut datagram) {
        counter.fetch_add(read as u64, Ordering::SeqCst);
    }
}

fn send_until(to: SocketAddr, end: Instant) -> io::Result<u64> {
    let mut stream = TcpStream::connect(to)?;
    let chunk = vec![0; CHUNK];
    let mut sent = 0;
    while Instant::now() < end {
        sent += stream.write(&chunk)? as u64;
    }
    Ok(sent)
}

fn read_until(from: SocketAddr, end: Instant) -> io::Result<u64> {
    let mut stream = TcpStream::connect(from)?;
    let mut chunk = vec![0; CHUNK];
    let mut got = 0;
    while Instant::now() < end {
        got += stream.read(&mut chunk)? as u64;
    }
    Ok(got)
}
