//! A way to moto out of a network namespace that has none: a thread that stayed outside carries the bytes over.

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;

use tokio::net::TcpStream;

/// A relay whose outer end is in the network namespace of the thread that made it.
pub(crate) struct Relay(mpsc::Sender<TcpListener>);

impl Relay {
    /// Carries to `moto`, as soon as somebody listens.
    pub(crate) fn to(moto: SocketAddr) -> Self {
        let (sender, listener) = mpsc::channel::<TcpListener>();
        // Threads begin in the namespace of who starts them.
        std::thread::spawn(move || {
            let Ok(listener) = listener.recv() else { return };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(carry(listener, moto));
        });
        Self(sender)
    }

    /// Opens the inner end in the namespace of the thread that calls this; answers where.
    pub(crate) fn listen(self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        self.0.send(listener).unwrap();
        address
    }
}

async fn carry(listener: TcpListener, moto: SocketAddr) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((mut inner, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            if let Ok(mut outer) = TcpStream::connect(moto).await {
                // Whoever ends first ends it; the proxy asks on a connection of its own each time.
                let _ended = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
            }
        });
    }
}
