//! The kernel's network objects over rtnetlink: a connection, and what is read by it in our own terms.
//!
//! Owns the translation from netlink attributes; decides nothing. Types that leave this module are plain data, so that plans can be
//! tested without a kernel. `change` writes links, addresses, routes and neighbours, `tc` reads and writes redirections.

mod change;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod read;
mod routes;
pub(crate) mod tc;

pub(crate) use read::{Address, Link, LinkKind};
pub(crate) use routes::KernelRoute;

use std::io;

use futures::StreamExt as _;
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::{Error, Handle};
use tokio::task::JoinHandle;

use crate::tunnel::TunnelError;

/// A netlink connection. Its socket belongs to the namespace of the thread that opened it, and closes when this is dropped.
#[derive(Debug)]
pub(crate) struct Rtnl {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Rtnl {
    /// Opens a socket in the calling thread's namespace; needs a runtime entered.
    pub(crate) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// The same as [`Rtnl::open`], for callers who are in the right namespace anyway.
    pub(crate) fn here() -> Result<Self, TunnelError> {
        Self::open()
            .map_err(|source| TunnelError::Kernel { step: "open a netlink socket".to_owned(), source })
    }
}

impl Rtnl {
    /// Sends a request for which rtnetlink has no words, and waits until the kernel has done it.
    async fn acknowledged(&self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Error> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self.handle.clone().request(request)?;
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::Error(e) if e.code.is_some() => return Err(Error::NetlinkError(e)),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Rtnl {
    fn drop(&mut self) {
        // An open socket would keep a removed namespace, with all its devices, alive.
        self.connection.abort();
    }
}

/// What the kernel said, as an I/O error with its errno where there is one.
pub(crate) fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

/// Turns a netlink error into ours, naming what was being done.
pub(crate) fn failed(step: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> TunnelError {
    move |error| TunnelError::Kernel { step: step.into(), source: io_error(error) }
}

/// Whether the kernel answered with one of these.
pub(crate) fn said(error: &rtnetlink::Error, any_of: &[Errno]) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(m) if any_of.iter().any(|e| m.raw_code().abs() == *e as i32))
}

/// Success for a removal whose object had gone already.
pub(crate) fn gone_is_ok(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(e) if said(&e, &[Errno::ENODEV, Errno::ENOENT, Errno::ESRCH, Errno::EADDRNOTAVAIL]) => Ok(()),
        other => other,
    }
}
