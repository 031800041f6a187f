//! The tunnels' firewall table: one nftables table, `inet peerpods`, in the network namespace that tunnels' UDP sockets are in (the
//! worker's, the VM's).
//!
//! It does two things. A VXLAN device takes packets of its identifier from *any* source: so packets with an identifier of ours on our
//! port are dropped and counted unless they come from that tunnel's peer. And packets of tunnels are kept from connection tracking,
//! whose table they would only fill. What others send to a tunnel's peer by way of this host is dropped too: address translation would
//! make it look like ours. Identifiers that are not ours are left alone, and so is every other table.
//!
//! A tunnel is admitted before its device is made and withdrawn after the device was removed. The table goes with the last tunnel. A
//! worker's tunnel is kept under the path of its pod's network namespace: one whose namespace is gone is removed at the next change,
//! whoever forgot it.
//!
//! Others can take the table away (`systemctl restart nftables` and `flush ruleset` do), and then devices take anybody's packets. So
//! all tunnels that are there are admitted again every minute (`keep`), in one look at the table.
//!
//! This process changes the table one change at a time (`TURN`): its own changes never overtake each other, and one whose caller has
//! gone is done before the next begins. The kernel refuses what other programs' changes have overtaken, and it is tried again.
//!
//! A kernel without nf_tables carries tunnels all the same, unguarded; the log says so once. `table` has the rules, `plan` decides,
//! this module observes and applies.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod plan;
mod table;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use peerpods_podvm::causes::chain;
use tokio::sync::{Mutex, oneshot};

use self::plan::{Change, Plan, State};
use self::table::{Peer, Tracking};
use crate::nft::{Message, NftError, Socket};
use crate::tunnel::TunnelError;

/// How often a change is tried that others' changes got in the way of, and the bounds of the pause between tries.
const TRIES: u32 = 100;
const PAUSE_MICROSECONDS: std::ops::Range<u64> = 1000..4000;

/// Held by the thread that looks and changes, and not by who waits for it: a caller that goes away leaves no change behind that could
/// come after a later one.
static TURN: Mutex<()> = Mutex::const_new(());

static WARNED: AtomicBool = AtomicBool::new(false);

/// Who may send packets of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub(crate) vni: u32,
    pub(crate) port: u16,
    pub(crate) peer: IpAddr,
    /// The pod's network namespace, on a worker: the tunnel's end is that of the namespace.
    pub(crate) netns: Option<PathBuf>,
}

impl From<Admitted> for Peer {
    fn from(Admitted { vni, port, peer, netns }: Admitted) -> Self {
        let netns = netns.as_deref().and_then(Path::to_str).map(str::to_owned);
        Self { vni, port, address: peer.to_canonical(), netns }
    }
}

/// Drops this tunnel's packets from anyone but its peer, from now on. In place of what was admitted for the same identifier and port.
pub(crate) async fn admit(tunnel: Admitted) -> Result<(), TunnelError> {
    let Admitted { vni, port, .. } = tunnel;
    let place = format!("guard the tunnel with VNI {vni} on port {port}");
    let Some(done) = tolerant(apply(|| Change::Admit(vec![tunnel.into()])).await, place)? else {
        return Ok(());
    };
    if let Tracking::Seen = done.tracking {
        tracing::debug!(
            "this kernel has no connection tracking in nf_tables; tunnels need no exception from it"
        );
    }
    Ok(())
}

/// Admits all of these again, should somebody have removed them. `tunnels` is asked when no other change is under way and none can come
/// before this one is done: what it does not name because it is about to be withdrawn stays withdrawn.
pub(crate) async fn keep(tunnels: impl FnOnce() -> Vec<Admitted>) -> Result<(), TunnelError> {
    let change = || Change::Admit(tunnels().into_iter().map(Peer::from).collect());
    let done = tolerant(apply(change).await, "keep the guard of the tunnels".to_owned())?;
    if let Some(Done { work: Work::Built(tunnels), .. }) = done {
        tracing::warn!(
            tunnels,
            "the firewall table inet peerpods was gone or not whole and is built anew: until now anyone could send into these tunnels; \
             look for what flushes the ruleset of this host (a restart of nftables does)"
        );
    }
    Ok(())
}

/// Forgets a tunnel. Ok when it was not there.
pub(crate) async fn withdraw(vni: u32, port: u16) -> Result<(), TunnelError> {
    let place = format!("end the guard of the tunnel with VNI {vni} on port {port}");
    tolerant(apply(|| Change::Withdraw { vni, port }).await, place).map(drop)
}

/// Removes what tunnels left whose pod's namespace is gone.
pub(crate) async fn collect() -> Result<(), TunnelError> {
    let place = "collect the guards of tunnels that are gone".to_owned();
    tolerant(apply(|| Change::Collect).await, place).map(drop)
}

/// Makes the table for a tunnel and removes both again, in the calling thread's network namespace, which must be one of the caller's
/// own. Tells whether packets can also be kept from connection tracking.
///
/// # Errors
/// When tunnels would be unguarded here; the text says what the kernel lacks.
pub async fn try_out() -> Result<bool, String> {
    let address = IpAddr::from([192, 0, 2, 1]);
    let said = |error: NftError| chain(&error);
    let peer = Peer { vni: 1, port: 9000, address, netns: None };
    let Done { tracking, .. } = apply(|| Change::Admit(vec![peer])).await.map_err(said)?;
    apply(|| Change::Withdraw { vni: 1, port: 9000 }).await.map_err(said)?;
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
        Err(NftError::Overtaken) => Err(TunnelError::Overtaken { step }),
        Err(NftError::Failed { source, .. }) => Err(TunnelError::Kernel { step, source }),
        Err(error) => Err(TunnelError::Kernel { step, source: io::Error::other(error) }),
    }
}

/// What a change came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Done {
    tracking: Tracking,
    work: Work,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// All was as wanted.
    Nothing,
    /// The table was whole and lists others now.
    Changed,
    /// There was none, or it was not whole; now it is, with so many tunnels.
    Built(usize),
}

/// Runs on a thread of its own: it inherits the caller's network namespace, and the socket blocks. `change` is asked in its turn.
async fn apply(change: impl FnOnce() -> Change) -> Result<Done, NftError> {
    let turn = TURN.lock().await;
    let change = change();
    let (answer, answered) = oneshot::channel();
    let started = std::thread::Builder::new().name("nftables".to_owned()).spawn(move || {
        let mut used = Vec::new();
        let done = apply_here(&change, &mut used);
        drop(turn);
        // No receiver: the caller was dropped; what was done stays, and is found by the next call.
        let _ = answer.send(done);
        // Only now: closing a socket waits until the kernel has freed what was replaced, some 10 ms that nobody else has to wait for.
        drop(used);
    });
    started.map_err(|source| NftError::Failed { step: "start a thread", source })?;
    let died = || NftError::Failed { step: "run a thread", source: io::ErrorKind::Interrupted.into() };
    answered.await.map_err(|_| died())?
}

/// `used` gets the sockets that changed something, which are closed by whoever has the time.
fn apply_here(change: &Change, used: &mut Vec<Socket>) -> Result<Done, NftError> {
    for _ in 0..TRIES {
        match apply_once(change, used) {
            // Not in step with who else tries again.
            Err(NftError::Overtaken) => {
                std::thread::sleep(Duration::from_micros(fastrand::u64(PAUSE_MICROSECONDS)));
            }
            done => return done,
        }
    }
    Err(NftError::Overtaken)
}

/// With a socket of its own: after a refusal more answers may wait in it.
fn apply_once(change: &Change, used: &mut Vec<Socket>) -> Result<Done, NftError> {
    let socket = Socket::open()?;
    let state = observe(&socket)?;
    let (generation, tracking) = (state.generation, state.tracking());
    match plan::plan(&state, change, namespace_is_gone) {
        // The answers are of several moments; they say the same as one only if nobody changed anything between them.
        Plan::Nothing if socket.generation()? != generation => Err(NftError::Overtaken),
        Plan::Nothing => Ok(Done { tracking, work: Work::Nothing }),
        Plan::Change(messages) => {
            commit(socket, generation, &messages, used)?;
            Ok(Done { tracking, work: Work::Changed })
        }
        Plan::Build(peers) => {
            let tracking = build(generation, &peers, used)?;
            Ok(Done { tracking, work: Work::Built(peers.len()) })
        }
    }
}

fn commit(
    socket: Socket,
    generation: u32,
    messages: &[Message],
    used: &mut Vec<Socket>,
) -> Result<(), NftError> {
    socket.change(generation, messages)?;
    used.push(socket);
    Ok(())
}

/// Connection tracking is a module of its own, which a small kernel need not have.
fn build(generation: u32, peers: &[Peer], used: &mut Vec<Socket>) -> Result<Tracking, NftError> {
    let mut with = |tracking| {
        let messages = table::build(peers, tracking);
        commit(Socket::open()?, generation, &messages, used).map(|()| tracking)
    };
    match with(Tracking::Bypassed) {
        Err(NftError::NotThere(_)) => match with(Tracking::Seen) {
            Err(NftError::NotThere(source)) => Err(NftError::Unavailable(source)),
            done => done,
        },
        done => done,
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
