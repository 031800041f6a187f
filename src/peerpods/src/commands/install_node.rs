//! `peerpods install-node`.

use std::path::PathBuf;

use super::{Failure, configured, reason};
use crate::cli::Global;
use crate::cli::flags::ConfigFlags;
use crate::cli::install_node::InstallNodeArgs;
use crate::exit;
use crate::installer::act::Report;
use crate::installer::host::Host;
use crate::installer::plan::{Files, Wish};
use crate::installer::stay::{self, ReadyFile};
use crate::installer::units::Systemd;
use crate::logging::Verbosity;
use crate::output::{self, Output};

/// Where the host's system bus is, from its root.
const BUS: &str = "run/dbus/system_bus_socket";

/// Does it, prints what was done, and stays where it is to stay.
pub(super) async fn run(global: &Global, asked: &InstallNodeArgs) -> Result<u8, Failure> {
    let ready = ReadyFile::at(&asked.ready_file);
    if asked.is_ready {
        return Ok(if ready.is_there() { exit::OK } else { exit::FAILURE });
    }
    configured(global, &ConfigFlags::default(), Verbosity::Service)?;
    reason::leave(work(global.output, asked, &ready).await, asked.reason_file.as_deref())
}

async fn work(form: Output, asked: &InstallNodeArgs, ready: &ReadyFile) -> Result<u8, Failure> {
    let host = Host::at(&asked.host_root)?;
    let bus: PathBuf = asked.bus.clone().unwrap_or_else(|| asked.host_root.join(BUS));
    let (units, wish) = (Systemd::on(&bus), wish(asked));
    if asked.once {
        output::answer(form, &stay::once(&host, &units, &wish).await?, text)?;
        return Ok(exit::OK);
    }
    let tell = |report: &Report| {
        // Where stdout is closed the log says the same.
        let _ = output::answer(form, report, text);
    };
    stay::stay(&host, &units, &wish, ready, stay::LOOK_EVERY, tell).await?;
    Ok(exit::OK)
}

fn wish(asked: &InstallNodeArgs) -> Wish {
    match asked.remove {
        true => Wish::Nothing,
        false => Wish::Files(Files {
            classes: asked.class.clone(),
            hypervisor_timeout: asked.hypervisor_timeout,
            log_level: asked.runtime_log_level.clone(),
        }),
    }
}

fn text(report: &Report) -> String {
    let written = report.written.iter().map(|path| format!("written    {path}\n"));
    let removed = report.removed.iter().map(|path| format!("removed    {path}\n"));
    let restarted = report.restarted.iter().map(|runtime| format!("restarted  {runtime}\n"));
    match report.is_empty() {
        true => "all is as wished\n".to_owned(),
        false => written.chain(removed).chain(restarted).collect(),
    }
}
