//! What `doctor` says of the link program and of where links run. Pure.

use peerpods_agentlink::process::placement::{Wanted, Way};

use super::checks::{bad, ok};
use super::{Facts, Finding, Level};

const CHECK: &str = "link placement";

pub(super) fn program(facts: &Facts) -> Finding {
    match &facts.link_program {
        Ok(path) => ok("link program", path.display().to_string()),
        Err(reason) => bad(
            "link program",
            Level::Error,
            reason,
            "install peerpods-link beside peerpods, or set link-program",
        ),
    }
}

/// Detached by default is a warning: whoever stops the service's container or unit ends its pods.
pub(super) fn finding(facts: &Facts) -> Finding {
    match &facts.link_placement {
        (_, Ok(choice)) if choice.way == Way::Systemd => {
            ok(CHECK, format!("units of the host's systemd: {}", choice.why))
        }
        (Wanted::Detached, Ok(choice)) => ok(CHECK, format!("detached, {}", choice.why)),
        (_, Ok(choice)) => bad(
            CHECK,
            Level::Warning,
            format!("detached, because {}", choice.why),
            "links end with our container or with a unit without KillMode=process: mount the host's /run/dbus, or set \
             link-placement to detached",
        ),
        (_, Err(reason)) => bad(
            CHECK,
            Level::Error,
            format!("link-placement is systemd, and {reason}"),
            "mount the host's /run/dbus, set systemd-bus, or set link-placement to auto",
        ),
    }
}

#[cfg(test)]
pub(super) fn healthy() -> (Wanted, Result<peerpods_agentlink::process::placement::Choice, String>) {
    let why = "systemd 252 answers".to_owned();
    (Wanted::Auto, Ok(peerpods_agentlink::process::placement::Choice { way: Way::Systemd, why }))
}

#[cfg(test)]
mod tests {
    use peerpods_agentlink::process::placement::Choice;

    use super::super::checks::tests::healthy as healthy_node;
    use super::*;

    #[test]
    fn it_says_where_links_run_and_warns_where_they_hang_on_us() {
        let choice = |way| Ok(Choice { way, why: "REASON".to_owned() });
        for (wanted, decided, level) in [
            (Wanted::Auto, choice(Way::Systemd), Level::Ok),
            (Wanted::Systemd, choice(Way::Systemd), Level::Ok),
            (Wanted::Detached, choice(Way::Detached), Level::Ok),
            (Wanted::Auto, choice(Way::Detached), Level::Warning),
            (Wanted::Systemd, Err("REASON".to_owned()), Level::Error),
        ] {
            let finding = finding(&Facts { link_placement: (wanted, decided), ..healthy_node() });
            assert!(finding.level == level && finding.found.contains("REASON"), "{finding:?}");
        }
    }
}
