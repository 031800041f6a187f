//! One shim's process: plays a pod's whole life against a hypervisor socket, and says on stdout how it goes.
//!
//! A process of its own, because shims are: it can be killed, and the service sees that it is gone. What to play comes as one line of
//! JSON ([`Order`]) on stdin, so that no sandbox's id is in a command line; what happens goes out as lines of JSON ([`Said`]). When the
//! life is over the process stays, connected to nothing, until its stdin ends: what is removed then was not removed because the shim died.

mod agent;
mod birth;
mod containers;
mod death;
mod player;
mod processes;
mod spec;
pub mod steps;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use self::player::{Ended, Player};
use super::Model;

/// Where containers of the life get their root file system from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rootfs {
    /// A directory of the guest's.
    Directory(PathBuf),
    /// An image that the guest pulls itself (`image_guest_pull`).
    Image(String),
}

/// Which container runtime the shim says the pod's name for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// containerd: the pod's name.
    Containerd,
    /// CRI-O: with the Go shim, the whole `k8s_…` name.
    Crio,
}

/// What happens to the shim, or the service, at one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The shim's process is killed with its request sent.
    Killed,
    /// It closes the connection with its request sent, and lives.
    Closed,
    /// It closes with the answer unread.
    Reset,
    /// Its deadline passes at once.
    TimedOut,
    /// It sends the request and waits until it is told to go on: meanwhile the service is restarted.
    Held,
}

/// A fault and where it comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The step's name.
    pub step: String,
    /// What happens.
    pub kind: Kind,
}

/// What to play.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// Which shim.
    pub model: Model,
    /// The hypervisor socket.
    pub socket: PathBuf,
    /// The pod's network namespace.
    pub netns: PathBuf,
    /// The sandbox.
    pub id: String,
    /// The pod's name.
    pub pod: String,
    /// Who says it.
    pub runtime: Runtime,
    /// The pod's address, when it is known: containers must have it.
    pub address: Option<String>,
    /// Without one no containers are made.
    pub rootfs: Option<Rootfs>,
    /// What goes wrong.
    pub fault: Option<Fault>,
    /// Stay in the middle of the life until told to go on, with long polls under way.
    pub linger: bool,
}

/// What was not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrong {
    /// Where.
    pub step: String,
    /// What must come.
    pub expected: String,
    /// What came.
    pub came: String,
    /// The fact that says so.
    pub rule: String,
}

/// What the shim's process says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// A step begins.
    Step(String),
    /// It waits at a step until it gets a line.
    Holding(String),
    /// StopVM was answered after so many milliseconds.
    StopTook(f64),
    /// The agent answered so many health checks of the monitor's.
    Checked(u32),
    /// The life is over.
    Over,
    /// It failed.
    Failed(Wrong),
}

/// Plays what stdin orders.
///
/// # Errors
/// When the order makes no sense.
pub async fn main() -> Result<(), String> {
    let mut player = Player::ordered().await?;
    let played = whole(&mut player).await;
    let ended = match played {
        Ok(()) => Ok(()),
        Err(Ended::Played(step)) => death::give_up(&mut player, step).await,
        Err(Ended::Wrong(wrong)) => {
            // A sandbox must not stay because its shim is not content.
            death::clean_up(&mut player).await;
            Err(Ended::Wrong(wrong))
        }
    };
    player.tell(&match ended {
        Err(Ended::Wrong(wrong)) => Said::Failed(wrong),
        Ok(()) | Err(Ended::Played(_)) => Said::Over,
    });
    player.wait_for_the_end().await;
    Ok(())
}

async fn whole(player: &mut Player) -> Result<(), Ended> {
    birth::create(player).await?;
    birth::start(player).await?;
    agent::connect(player).await?;
    agent::open_sandbox(player).await?;
    if player.order().rootfs.is_some() {
        containers::pause(player).await?;
        containers::app(player).await?;
        processes::exec(player).await?;
        processes::terminal(player).await?;
        containers::figures(player).await?;
    }
    if player.order().linger {
        player.hold("linger").await;
        agent::check(player, "Check").await?;
    }
    if player.order().rootfs.is_some() {
        containers::stop(player).await?;
    }
    death::end(player).await
}
