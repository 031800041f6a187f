//! The tunnels' firewall table: one nftables table, `inet peerpods`, in the network namespace that tunnels' UDP sockets are in (the
//! worker's, the VM's).
//!
//! It does two things. A VXLAN device takes packets of its identifier from *any* source: so packets with an identifier of ours on our
//! port are dropped and counted unless they come from that tunnel's peer. And packets of tunnels are kept from connection tracking,
//! whose table they would only fill. What others send to a tunnel's peer by way of this host is dropped too: address translation would
//! make it look like ours. Identifiers that are not ours are left alone, and so is every other table.
//!
//! A tunnel is admitted before its device is made and withdrawn after the device was removed, so there is no moment in which the
//! device takes anybody's packets. The table goes with the last tunnel. A worker's tunnel is kept under the path of its pod's network
//! namespace: one whose namespace is gone is removed at the next change, whoever forgot it.
//!
//! A kernel without nf_tables carries tunnels all the same, unguarded; the log says so once. `table` has the rules, `plan` decides,
//! this module observes and applies.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod plan;
mod table;

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::oneshot;

use self::plan::{Change, Plan, State};
use self::table::{Peer, Tracking};
use crate::nft::{NftError, Socket};
use crate::tunnel::TunnelError;

/// How often a change is tried that others' changes got in the way of, and the pause between tries.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(2);

static WARNED: AtomicBool = AtomicBool::new(false);

/// Who may send packets of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admitted<'a> {
    pub(crate) vni: u32,
    pub(crate) port: u16,
    pub(crate) peer: IpAddr,
    /// The pod's network namespace, on a worker: the tunnel's end is that of the namespace.
    pub(crate) netns: Option<&'a Path>,
}

/// Drops this tunnel's packets from anyone but its peer, from now on. In place of what was admitted for the same identifier and port.
pub(crate) async fn admit(tunnel: Admitted<'_>) -> Result<(), TunnelError> {
    let Admitted { vni, port, peer, netns } = tunnel;
    let netns = netns.and_then(Path::to_str).map(str::to_owned);
    let change = Change::Admit(Peer { vni, port, address: peer.to_canonical(), netns });
    let place = format!("guard the tunnel with VNI {vni} on port {port}");
    let Some(done) = tolerant(apply(change).await, place)? else { return Ok(()) };
    if let Tracking::Seen = done {
        tracing::debug!(
            "this kernel has no connection tracking in nf_tables; tunnels need no exception from it"
        );
    }
    Ok(())
}

/// Forgets a tunnel. Ok when it was not there.
pub(crate) async fn withdraw(vni: u32, port: u16) -> Result<(), TunnelError> {
    let place = format!("end the guard of the tunnel with VNI {vni} on port {port}");
    tolerant(apply(Change::Withdraw { vni, port }).await, place).map(drop)
}

/// Removes what tunnels left whose pod's namespace is gone.
pub(crate) async fn collect() -> Result<(), TunnelError> {
    tolerant(apply(Change::Collect).await, "collect the guards of tunnels that are gone".to_owned()).map(drop)
}

/// Makes the table for a tunnel and removes both again, in the calling thread's network namespace, which must be one of the caller's
/// own. Tells whether packets can also be kept from connection tracking.
///
/// # Errors
/// When tunnels would be unguarded here; the text says what the kernel lacks.
pub async fn try_out() -> Result<bool, String> {
    let address = IpAddr::from([192, 0, 2, 1]);
    let said = |error: NftError| chain(&error);
    let tracking =
        apply(Change::Admit(Peer { vni: 1, port: 9000, address, netns: None })).await.map_err(said)?;
    apply(Change::Withdraw { vni: 1, port: 9000 }).await.map_err(said)?;
    Ok(tracking == Tracking::Bypassed)
}

/// `None` for a kernel without nf_tables.
fn tolerant<T>(result: Result<T, NftError>, step: String) -> Result<Option<T>, TunnelError> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(error @ NftError::Unavailable(_)) => {
            if !WARNED.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    reason = chain(&error),
                    "tunnels work unguarded: anyone who can send to this host's tunnel port can send into pods; \
                     load the module nf_tables (`peerpods doctor` checks it)"
                );
            }
            Ok(None)
        }
        Err(NftError::Failed { source, .. }) => Err(TunnelError::Kernel { step, source }),
        Err(error) => Err(TunnelError::Kernel { step, source: io::Error::other(error) }),
    }
}

fn chain(error: &NftError) -> String {
    match std::error::Error::source(error) {
        Some(source) if !matches!(error, NftError::Unavailable(_)) => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}

/// Runs on a thread of its own: it inherits the caller's network namespace, and the socket blocks.
async fn apply(change: Change) -> Result<Tracking, NftError> {
    let (answer, answered) = oneshot::channel();
    let started = std::thread::Builder::new().name("nftables".to_owned()).spawn(move || {
        let mut used = Vec::new();
        // No receiver: the caller was dropped; what was done stays, and is found by the next call.
        let _ = answer.send(apply_here(&change, &mut used));
        // Only now: closing a socket waits until the kernel has freed what was replaced, some 10 ms that nobody else has to wait for.
        drop(used);
    });
    started.map_err(|source| NftError::Failed { step: "start a thread", source })?;
    let died = || NftError::Failed { step: "run a thread", source: io::ErrorKind::Interrupted.into() };
    answered.await.map_err(|_| died())?
}

/// `used` gets the sockets, which are closed by whoever has the time.
fn apply_here(change: &Change, used: &mut Vec<Socket>) -> Result<Tracking, NftError> {
    for _ in 0..TRIES {
        match apply_once(change, used) {
            Err(NftError::Overtaken) => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
    Err(NftError::Overtaken)
}

/// With a socket of its own: after a refusal more answers may wait in it.
fn apply_once(change: &Change, used: &mut Vec<Socket>) -> Result<Tracking, NftError> {
    let socket = open(used)?;
    let state = observe(socket)?;
    match plan::plan(&state, change, namespace_is_gone) {
        Plan::Nothing => Ok(state.tracking()),
        Plan::Change(messages) => socket.change(state.generation, &messages).map(|()| state.tracking()),
        Plan::Build(peers) => build(state.generation, &peers, used),
    }
}

fn open(used: &mut Vec<Socket>) -> Result<&Socket, NftError> {
    Ok(used.push_mut(Socket::open()?))
}

/// Connection tracking is a module of its own, which a small kernel need not have.
fn build(generation: u32, peers: &[Peer], used: &mut Vec<Socket>) -> Result<Tracking, NftError> {
    let with = open(used)?.change(generation, &table::build(peers, Tracking::Bypassed));
    match with {
        Err(NftError::NotThere(_)) => {
            let without = open(used)?.change(generation, &table::build(peers, Tracking::Seen));
            match without {
                Err(NftError::NotThere(source)) => Err(NftError::Unavailable(source)),
                done => done.map(|()| Tracking::Seen),
            }
        }
        done => done.map(|()| Tracking::Bypassed),
    }
}

fn observe(socket: &Socket) -> Result<State, NftError> {
    let generation = socket.generation()?;
    let rules = socket.rules(table::NAME)?;
    let list = |set| socket.elements(table::NAME, set);
    let sets = table::SETS.iter().map(|set| list(set.name)).collect::<Result<_, _>>()?;
    Ok(State { generation, rules, sets })
}

/// Gone is what has no name any more. Other errors, such as a directory that cannot be read, say nothing.
fn namespace_is_gone(path: &str) -> bool {
    match std::fs::metadata(path) {
        Ok(_) => false,
        Err(error) => [Errno::ENOENT, Errno::ENOTDIR].iter().any(|e| error.raw_os_error() == Some(*e as i32)),
    }
}
