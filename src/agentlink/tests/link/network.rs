//! A network between a link and its guest that can be cut: a TCP proxy that stalls, forgets and resets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the network does. Connections are numbered as they are made.
#[derive(Clone, Copy, Default)]
struct Weather {
    down: bool,
    /// Connections below it carry nothing any more and are never closed.
    forgotten: usize,
    /// Connections below it are reset.
    reset: usize,
    /// New connections are reset.
    refusing: bool,
}

/// The network; gone when dropped.
pub(crate) struct Network {
    /// Where the guest seems to be.
    pub(crate) address: SocketAddr,
    weather: Arc<watch::Sender<Weather>>,
    made: Arc<AtomicUsize>,
    guest: watch::Sender<SocketAddr>,
    accepting: JoinHandle<()>,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Network {
    pub(crate) async fn to(guest: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let weather = Arc::new(watch::Sender::new(Weather::default()));
        let made = Arc::new(AtomicUsize::new(0));
        let guest = watch::Sender::new(guest);
        let accepting = tokio::spawn(accept(listener, guest.subscribe(), weather.clone(), made.clone()));
        Self { address, weather, made, guest, accepting }
    }

    /// New connections go elsewhere from here on.
    pub(crate) fn lead_to(&self, guest: SocketAddr) {
        self.guest.send_replace(guest);
    }

    /// How many connections were made.
    pub(crate) fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    /// Nothing gets through and nobody is told; what is under way waits.
    pub(crate) fn stall(&self) {
        self.weather.send_modify(|weather| weather.down = true);
    }

    /// Connections that stand now carry nothing any more, not even after the network is back; nobody is told.
    pub(crate) fn forget(&self) {
        let made = self.made();
        self.weather.send_modify(|weather| weather.forgotten = made);
    }

    /// Resets every connection; new ones are reset until [`Network::back`].
    pub(crate) fn reset(&self) {
        let made = self.made();
        self.weather.send_modify(|weather| (weather.reset, weather.refusing) = (made, true));
    }

    /// The network works.
    pub(crate) fn back(&self) {
        self.weather.send_modify(|weather| (weather.down, weather.refusing) = (false, false));
    }
}

async fn accept(
    listener: TcpListener,
    guest: watch::Receiver<SocketAddr>,
    weather: Arc<watch::Sender<Weather>>,
    made: Arc<AtomicUsize>,
) {
    loop {
        let (near, _) = listener.accept().await.unwrap();
        let number = made.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(carry(near, *guest.borrow(), weather.subscribe(), number));
    }
}

async fn carry(near: TcpStream, guest: SocketAddr, weather: watch::Receiver<Weather>, number: usize) {
    near.set_zero_linger().unwrap();
    if weather.borrow().refusing {
        return;
    }
    let Ok(far) = TcpStream::connect(guest).await else { return };
    far.set_zero_linger().unwrap();
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let mut until_reset = weather.clone();
    tokio::select! {
        _ = until_reset.wait_for(|weather| number < weather.reset) => {}
        _ = async {
            tokio::join!(
                pump(near_read, far_write, weather.clone(), number),
                pump(far_read, near_write, weather.clone(), number),
            )
        } => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    number: usize,
) {
    let mut chunk = vec![0; 7000];
    loop {
        let Ok(read) = from.read(&mut chunk).await else { return };
        let passes = |weather: &Weather| !weather.down && number >= weather.forgotten;
        if weather.wait_for(passes).await.is_err() {
            return;
        }
        if read == 0 {
            let _ = to.shutdown().await;
            return;
        }
        if to.write_all(&chunk[..read]).await.is_err() {
            return;
        }
    }
}
