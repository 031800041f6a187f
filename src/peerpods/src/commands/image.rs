//! `peerpods image …`: the builder is a library, this is its command line.

use std::path::{Path, PathBuf};

use peerpods_images::{BuildOptions, Built, Step, build, verify};
use serde::Serialize;

use super::{Failure, configured};
use crate::cli::flags::ConfigFlags;
use crate::cli::{BuildArgs, Global, ImageCommand, Target};
use crate::config::{ProviderSettings, Settings};
use crate::exit;
use crate::logging::Verbosity;
use crate::output::{self, Output};
use crate::programs::{GUEST, MINIAGENT, NotFound, Places};

/// What a build answers.
#[derive(Debug, Serialize)]
struct Answer {
    directory: PathBuf,
    kernel_release: String,
    agent: String,
    kernel_bytes: usize,
    initramfs_bytes: usize,
    took_ms: u128,
    warnings: Vec<String>,
}

pub(super) async fn run(global: &Global, command: ImageCommand) -> Result<u8, Failure> {
    let settings = configured(global, &ConfigFlags::default(), Verbosity::Command)?;
    let output = global.output;
    // The builder blocks: it reads packages and runs apt.
    tokio::task::spawn_blocking(move || match command {
        ImageCommand::Build(args) => build_image(output, &settings, args),
        ImageCommand::Verify { directory } => verify_image(output, &directory),
    })
    .await?
}

fn build_image(output: Output, settings: &Settings, args: BuildArgs) -> Result<u8, Failure> {
    let options = options(settings, args)?;
    let built = build(&options, &mut |step| tell(output, &step))?;
    output::answer(output, &answer(built), |answer| {
        format!(
            "{}: kernel {} ({} MiB), initramfs {} MiB, {}, in {:.1} s",
            answer.directory.display(),
            answer.kernel_release,
            mib(answer.kernel_bytes),
            mib(answer.initramfs_bytes),
            answer.agent,
            answer.took_ms as f64 / 1000.0,
        )
    })?;
    Ok(exit::OK)
}

fn verify_image(output: Output, directory: &Path) -> Result<u8, Failure> {
    let image = verify(directory)?;
    output::answer(output, &image, |image| {
        format!("{}: good; kernel {}, {}", directory.display(), image.kernel_release, image.agent)
    })?;
    Ok(exit::OK)
}

fn options(settings: &Settings, args: BuildArgs) -> Result<BuildOptions, NotFound> {
    let places = Places::of_this_process();
    let program = |given: Option<PathBuf>, name: &str| match given {
        Some(path) => Ok(path),
        None => places.find(Path::new(name)),
    };
    let miniagent = match (&args.agent, args.miniagent) {
        // Not looked at when there is a kata-agent.
        (Some(_), given) => given.unwrap_or_else(|| MINIAGENT.into()),
        (None, given) => program(given, MINIAGENT)?,
    };
    let configured = match (args.target, &settings.provider) {
        (Target::Qemu, ProviderSettings::Qemu(qemu)) => qemu.image.clone(),
        #[cfg(feature = "aws")]
        (Target::Qemu, ProviderSettings::Aws(_)) => peerpods_provider_qemu::QemuConfig::default().image,
    };
    Ok(BuildOptions {
        output: args.out.unwrap_or(configured),
        guest: program(args.guest, GUEST)?,
        miniagent,
        agent: args.agent,
        pins: args.pins,
        cache: args.cache,
        offline: args.offline,
    })
}

fn tell(output: Output, step: &Step) {
    if output == Output::Text {
        eprintln!("{step}");
    }
}

fn answer(built: Built) -> Answer {
    Answer {
        directory: built.directory,
        kernel_release: built.image.kernel_release,
        agent: built.image.agent,
        kernel_bytes: built.kernel_bytes,
        initramfs_bytes: built.initramfs_bytes,
        took_ms: built.took.as_millis(),
        warnings: built.warnings,
    }
}

fn mib(bytes: usize) -> usize {
    bytes >> 20
}
