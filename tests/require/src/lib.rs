//! What a test needs of its machine, and what happens when it is not there.
//!
//! A test that cannot run says so: it prints `SKIP <test>: <reason>` and returns. Where `PEERPODS_REQUIRE_ALL=1` is set (CI), the
//! same condition is a failure, so that a green run can never hide a test that did not run.

use std::path::Path;
use std::process::Command;

/// The variable that turns a skip into a failure.
pub const REQUIRE_ALL: &str = "PEERPODS_REQUIRE_ALL";

/// Something a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Effective user id 0, for netlink, namespaces and mounts.
    Root,
    /// The right to make a network namespace, tried once.
    NetworkNamespaces,
    /// A program on the PATH.
    Program(&'static str),
    /// A file or directory, such as `/dev/net/tun`.
    Path(&'static str),
    /// An environment variable that `make test` sets, such as the place of a built image.
    Variable(&'static str),
    /// An environment variable that only the owner of what is tested can set, and what it is to name.
    Setting(&'static str, &'static str),
}

impl Need {
    fn missing(self) -> Option<String> {
        let reason = match self {
            Need::Root => (!nix::unistd::geteuid().is_root()).then(|| "needs root".to_owned()),
            Need::NetworkNamespaces => {
                let tried = Command::new("unshare").args(["--net", "true"]).status();
                (!tried.is_ok_and(|s| s.success())).then(|| "cannot make a network namespace".to_owned())
            }
            Need::Program(name) => {
                (!on_path(name)).then(|| format!("needs the program {name:?} on the PATH"))
            }
            Need::Path(path) => (!Path::new(path).exists()).then(|| format!("needs {path}")),
            Need::Variable(name) => std::env::var_os(name)
                .is_none()
                .then(|| format!("needs the variable {name} (set by `make test`)")),
            Need::Setting(name, what) => {
                std::env::var_os(name).is_none().then(|| format!("the variable {name} does not name {what}"))
            }
        };
        reason.filter(|r| !r.is_empty())
    }
}

fn on_path(name: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// True when everything needed is there. Otherwise prints `SKIP` with the reason and answers false, or panics under
/// [`REQUIRE_ALL`]. Write `if !require("name", &[...]) { return; }` as the first line of a test.
#[must_use]
pub fn require(test: &str, needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
    if missing.is_empty() {
        return true;
    }
    skip(test, &missing.join(", "));
    false
}

/// Says that a test does not run, for a reason that no [`Need`] is: `SKIP` with it, or a failure under [`REQUIRE_ALL`]. A test that is
/// for one place alone is left out by name where others are run.
#[expect(clippy::panic, reason = "this crate is used by tests only; failing the test is its purpose")]
pub fn skip(test: &str, reason: &str) {
    if std::env::var(REQUIRE_ALL).is_ok_and(|v| v == "1") {
        panic!("{test} cannot run here ({reason}), and {REQUIRE_ALL}=1 forbids skipping");
    }
    println!("SKIP {test}: {reason}");
}
