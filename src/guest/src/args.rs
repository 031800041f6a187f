//! The command line. As PID 1 there is none, and everything is at its default.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tracing::level_filters::LevelFilter;

/// Where stock parts expect the agent link.
const AGENT_PORT: u16 = 15150;

/// Says what this guest can, for people and for who builds an image with it.
const LONG_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\n", "peerpods-guest can: admission/1");

/// The daemon inside a pod VM: takes the worker's message, lays the pod's network, runs the agent and serves the agent link.
#[derive(Debug, Clone, Parser)]
#[command(name = "peerpods-guest", version, long_version = LONG_VERSION)]
pub struct Args {
    /// The worker's message, a cloud-config document. Without it: apf.json in the run directory if something wrote that already, else QEMU's
    /// fw_cfg device, else /media/cidata/user-data.
    #[arg(long, value_name = "FILE")]
    pub user_data: Option<PathBuf>,

    /// How long to wait for the message to appear, in seconds (cloud-init or a disk may be later than we are).
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub user_data_wait: Duration,

    /// Where the agent link is served. Without it: port 15150 of all addresses of the worker's family.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,

    /// The pod's network namespace; made when missing.
    #[arg(long, value_name = "PATH", default_value = "/run/netns/podns")]
    pub podns: PathBuf,

    /// Where the files of the message go; stock parts expect the default.
    #[arg(long, value_name = "DIR", default_value = "/run/peerpod")]
    pub run_dir: PathBuf,

    /// The agent. Without it: /usr/bin/kata-agent, /usr/local/bin/kata-agent, `miniagent` beside this program, /usr/bin/miniagent.
    #[arg(long, value_name = "PROGRAM")]
    pub agent: Option<PathBuf>,

    /// The agent's socket. Never below /run/kata-containers, which the agent empties when a sandbox is created.
    #[arg(long, value_name = "PATH", default_value = "/run/kata-agent/agent.sock")]
    pub agent_socket: PathBuf,

    /// How much to say: off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LevelFilter,
}

impl Args {
    /// Where the agent link is served to the worker of this address.
    #[must_use]
    pub fn listen(&self, worker: Option<IpAddr>) -> SocketAddr {
        let all = match worker.map(|worker| worker.to_canonical()) {
            Some(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            Some(IpAddr::V4(_)) | None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        self.listen.unwrap_or(SocketAddr::new(all, AGENT_PORT))
    }
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_flags_everything_is_where_stock_parts_expect_it() {
        let args = Args::parse_from(["peerpods-guest"]);
        let listens = |worker: &str| args.listen(worker.parse().ok()).to_string();
        assert_eq!(listens(""), "0.0.0.0:15150");
        assert_eq!(listens("10.0.0.1"), "0.0.0.0:15150");
        assert_eq!(listens("::ffff:10.0.0.1"), "0.0.0.0:15150");
        assert_eq!(listens("fd00::1"), "[::]:15150");
        let told = Args { listen: "127.0.0.1:1".parse().ok(), ..args.clone() };
        assert_eq!(told.listen("fd00::1".parse().ok()).to_string(), "127.0.0.1:1");
        assert_eq!(args.run_dir, PathBuf::from("/run/peerpod"));
        assert_eq!(args.podns, PathBuf::from("/run/netns/podns"));
        assert!(!args.agent_socket.starts_with("/run/kata-containers"));
    }

    #[test]
    fn the_long_version_says_what_an_image_builder_looks_for() {
        assert!(LONG_VERSION.contains(peerpods_podvm::image::GUEST_ADMITTED_BY_TOKEN));
    }

    #[test]
    fn the_flags_of_the_test_bed_are_understood() {
        let args = Args::try_parse_from([
            "peerpods-guest",
            "--user-data",
            "F",
            "--listen",
            "0.0.0.0:15150",
            "--podns",
            "/run/netns/ppvm-1-podns",
            "--run-dir",
            "D",
            "--agent",
            "M",
            "--agent-socket",
            "D/agent.sock",
            "--log-level",
            "debug",
        ]);
        assert_eq!(args.unwrap().log_level, LevelFilter::DEBUG);
        assert!(Args::try_parse_from(["peerpods-guest", "--log-level", "loud"]).is_err());
    }

    #[test]
    fn the_unit_we_ship_calls_us_with_flags_we_have() {
        let unit = include_str!("../dist/peerpods-guest.service");
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let args = Args::try_parse_from(line.split_ascii_whitespace()).unwrap();
        assert!(args.user_data_wait > Duration::ZERO && args.user_data.is_none());
        assert!(unit.contains("Type=notify") && unit.contains("Restart=no"));
    }
}
