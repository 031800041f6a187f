//! Which files are to be different from what they are, and who reads them. Pure.

use peerpods_podvm::node_files::{self, Handler, SHIM_CONFIGURATION};

use super::{CRIO_DROP_IN, Change, Fault, Files, HEADER, Observed};
use crate::installer::Runtime;
use crate::installer::containerd::{self, Config};
use crate::installer::host::File;

/// For our files to be there.
pub(super) fn installing(files: &Files, observed: &Observed) -> Result<Vec<Change>, Fault> {
    let handlers = handlers(files, observed)?;
    let mut changes = Vec::new();
    let shim_configuration = || node_files::shim_configuration(files.hypervisor_timeout);
    changes.extend(own(
        observed,
        SHIM_CONFIGURATION,
        (!files.classes.is_empty()).then(shim_configuration),
        None,
    )?);
    let crio = observed.running.contains(&Runtime::Crio);
    let containerd = observed.running.contains(&Runtime::Containerd) && !(crio && is_for_others(observed));
    if !crio && !containerd {
        return Err(Fault::NoRuntime);
    }
    let level = files.log_level.as_deref();
    let drop_in = || node_files::crio_drop_in(&handlers, level);
    let crio = crio && (!handlers.is_empty() || level.is_some());
    changes.extend(own(observed, CRIO_DROP_IN, crio.then(drop_in), Some(Runtime::Crio))?);
    changes.extend(match containerd && !handlers.is_empty() {
        true => in_containerd(observed, &handlers, level)?,
        false => out_of_containerd(observed)?,
    });
    Ok(changes)
}

/// The handlers that are to be there: those for peer pods, and that of the node itself where nobody has it.
fn handlers(files: &Files, observed: &Observed) -> Result<Vec<Handler>, Fault> {
    let shim = observed.shim.clone().ok_or(Fault::NoShim)?;
    let mut handlers: Vec<Handler> = files
        .classes
        .iter()
        .map(|class| Handler {
            name: class.clone(),
            shim: shim.clone(),
            configuration: SHIM_CONFIGURATION.to_owned(),
        })
        .collect();
    let local = observed.local.clone().filter(|_| holder(observed, "kata").is_none());
    handlers.extend(local.map(|configuration| Handler { name: "kata".to_owned(), shim, configuration }));
    if handlers.is_empty() && holder(observed, "kata").is_none() {
        return Err(Fault::NothingToPlace);
    }
    for class in &files.classes {
        if let Some(path) = holder(observed, class) {
            return Err(Fault::Taken { path: path.to_owned(), handler: class.clone() });
        }
    }
    Ok(handlers)
}

/// Whether containerd runs for somebody else than the kubelet: Docker's does beside CRI-O.
fn is_for_others(observed: &Observed) -> bool {
    Config::read(observed.text(containerd::MAIN)).is_ok_and(|config| config.has_no_cri())
}

/// The file of somebody else that has a handler of this name.
fn holder<'a>(observed: &'a Observed, name: &str) -> Option<&'a str> {
    let in_containerd = |path: &&str| {
        let text = containerd::without_ours(observed.text(path)).filter(|text| !text.starts_with(HEADER));
        text.and_then(|text| Config::read(&text).ok()).is_some_and(|config| config.has_handler(name))
    };
    let in_crio = |path: &&str| {
        let table = observed.text(path).parse::<toml::Table>().ok();
        table.is_some_and(|table| {
            let runtimes = table.get("crio").and_then(|crio| crio.get("runtime")?.get("runtimes"));
            runtimes.is_some_and(|runtimes| runtimes.get(name).is_some())
        })
    };
    let files = std::iter::once(containerd::MAIN).chain(observed.imported.iter().map(String::as_str));
    let mut files = files.filter(|_| observed.running.contains(&Runtime::Containerd));
    let mut of_crio = observed.of_crio.iter().map(String::as_str);
    files.find(in_containerd).or_else(|| of_crio.find(in_crio))
}

/// A file that is all ours: as it is to be, or not there.
fn own(
    observed: &Observed,
    path: &str,
    wanted: Option<String>,
    reader: Option<Runtime>,
) -> Result<Option<Change>, Fault> {
    let there = observed.file(path);
    let ours = matches!(there, File::Text(text) if text.starts_with(HEADER));
    let after = wanted.map(|text| format!("{HEADER}{text}"));
    match (there, &after) {
        (File::Absent, None) => return Ok(None),
        // Not ours to remove.
        (_, None) if !ours => return Ok(None),
        (File::Absent, Some(_)) => {}
        (_, Some(_)) if !ours => return Err(foreign(path, there)),
        (File::Text(text), Some(after)) if text == after => return Ok(None),
        _ => {}
    }
    Ok(Some(Change { path: path.to_owned(), after, reader }))
}

fn foreign(path: &str, there: &File) -> Fault {
    let what = match there {
        File::Other(what) => what.clone(),
        File::Linked(_) => "a symbolic link".to_owned(),
        File::Text(_) | File::Absent => "it lacks our first line".to_owned(),
    };
    Fault::Foreign { path: path.to_owned(), what }
}

/// containerd's part, by the version of its main file.
fn in_containerd(
    observed: &Observed,
    handlers: &[Handler],
    level: Option<&str>,
) -> Result<Vec<Change>, Fault> {
    let main = observed.file(containerd::MAIN);
    if *main == File::Absent || main.text().is_some_and(|text| text.starts_with(HEADER)) {
        return whole(observed, handlers);
    }
    let Some(text) = main.text() else { return Err(foreign(containerd::MAIN, main)) };
    let fault = |why: String| Fault::Containerd { path: containerd::MAIN.to_owned(), why };
    let config = Config::read(text).map_err(|why| fault(format!("no TOML: {why}")))?;
    if config.has_no_cri() {
        return Err(fault(
            "disabled_plugins has the CRI plugin, so no kubelet is served: take it out".to_owned(),
        ));
    }
    let Some(version) = config.written_as() else {
        let version = config.version();
        return Err(fault(format!(
            "it is of version {version}, and of 2 it has to be: `containerd config migrate` prints it so"
        )));
    };
    let sections = node_files::containerd_handlers(version, handlers);
    let mut changes = Vec::new();
    if !version.merges_plugins() {
        let holder = block_holder(observed);
        changes.extend(own(observed, containerd::DROP_IN, None, Some(Runtime::Containerd))?);
        changes.extend(edits(observed, Some(&holder), &|text| containerd::with_block(text, &sections))?);
        return Ok(changes);
    }
    let level = level.map(|level| format!("[debug]\nlevel = \"{level}\"\n\n")).unwrap_or_default();
    let drop_in = format!("version = {}\n\n{level}{sections}", version.number());
    changes.extend(own(observed, containerd::DROP_IN, Some(drop_in), Some(Runtime::Containerd))?);
    let needs_import = containerd::without_ours(text)
        .and_then(|text| Config::read(&text).ok())
        .is_some_and(|config| !config.imports_ours());
    let main = needs_import.then_some(containerd::MAIN);
    changes.extend(edits(observed, main, &containerd::with_import)?);
    Ok(changes)
}

/// A main file that is all ours, where there was none: what containerd does without one, and our handlers. Every containerd since 1.3
/// reads version 2.
fn whole(observed: &Observed, handlers: &[Handler]) -> Result<Vec<Change>, Fault> {
    let Some(version) = node_files::ContainerdVersion::new(2) else { return Ok(Vec::new()) };
    let text = format!("version = 2\n\n{}", node_files::containerd_handlers(version, handlers));
    let main = own(observed, containerd::MAIN, Some(text), Some(Runtime::Containerd))?;
    let drop_in = own(observed, containerd::DROP_IN, None, Some(Runtime::Containerd))?;
    Ok(main.into_iter().chain(drop_in).collect())
}

/// The file whose section of the CRI plugin counts in containerd 1: the last that has one.
fn block_holder(observed: &Observed) -> String {
    let has = |path: &&String| Config::read(observed.text(path)).is_ok_and(|config| config.has_cri_section());
    observed.imported.iter().rev().find(has).cloned().unwrap_or_else(|| containerd::MAIN.to_owned())
}

/// The host's own files with our part in one of them, and in no other.
fn edits(
    observed: &Observed,
    holder: Option<&str>,
    add: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Change>, Fault> {
    let mut changes = Vec::new();
    let main = containerd::MAIN.to_owned();
    for path in std::iter::once(&main).chain(&observed.imported) {
        let file = observed.file(path);
        let Some(text) = file.text().filter(|text| !text.starts_with(HEADER)) else { continue };
        let without = containerd::without_ours(text).ok_or_else(|| Fault::Edited { path: path.clone() })?;
        let after = match holder == Some(path.as_str()) {
            true => add(&without).ok_or_else(|| Fault::Containerd {
                path: path.clone(),
                why: "our part cannot be added with certainty: write its `imports` and its tables one key a line".to_owned(),
            })?,
            false => without,
        };
        if after == *text {
            continue;
        }
        if matches!(file, File::Linked(_)) {
            return Err(foreign(path, file));
        }
        changes.push(Change { path: path.clone(), after: Some(after), reader: Some(Runtime::Containerd) });
    }
    Ok(changes)
}

fn out_of_containerd(observed: &Observed) -> Result<Vec<Change>, Fault> {
    let reader = Some(Runtime::Containerd);
    let mut changes: Vec<Change> = own(observed, containerd::MAIN, None, reader)?.into_iter().collect();
    // First the reference, then what it means.
    changes.extend(edits(observed, None, &|_| None)?);
    changes.extend(own(observed, containerd::DROP_IN, None, reader)?);
    Ok(changes)
}

/// For them to be gone.
pub(super) fn removing(observed: &Observed) -> Result<Vec<Change>, Fault> {
    let mut changes = out_of_containerd(observed)?;
    changes.extend(own(observed, CRIO_DROP_IN, None, Some(Runtime::Crio))?);
    changes.extend(own(observed, SHIM_CONFIGURATION, None, None)?);
    Ok(changes)
}
