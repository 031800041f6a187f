//! The build itself: observe (packages and programs) → decide ([`crate::plan`]) → act ([`crate::output`]).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use peerpods_podvm::image::{GUEST_ADMITTED_BY_TOKEN, INITRAMFS, QemuImage};

use crate::archive;
use crate::deb::{DebError, read_files};
use crate::kernel::{KernelError, extract_vmlinux};
use crate::manifest::{Manifest, ManifestError, QEMU};
use crate::modules::{ModuleError, Modules};
use crate::output::{Contents, OutputError, sha256, write};
use crate::packages::{Network, Package, PackageError, fetch};
use crate::pins::{Pin, Pins, PinsError};
use crate::plan::{Programs, tree};
use crate::program::{ProgramError, check_static, read_static};
use crate::tree::TreeError;
use crate::verify::{VerifyError, verify};

/// How the programs in the image are compiled, for messages.
pub const GUEST_BUILD_COMMAND: &str = "RUSTFLAGS=\"-C target-feature=+crt-static\" cargo build --profile guest \
     --target x86_64-unknown-linux-gnu -p peerpods-guest -p peerpods-miniagent";

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// The image's directory; replaced when it exists.
    pub output: PathBuf,
    /// `peerpods-guest`, statically linked.
    pub guest: PathBuf,
    /// `miniagent`, statically linked; not looked at when there is an `agent`.
    pub miniagent: PathBuf,
    /// A real kata-agent, statically linked, in place of `miniagent`.
    pub agent: Option<PathBuf>,
    /// A pins file in place of the one compiled in.
    pub pins: Option<PathBuf>,
    /// Where downloaded packages are kept; made when missing.
    pub cache: PathBuf,
    /// Use the cache only.
    pub offline: bool,
}

/// What the build is doing, for whoever waits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A package is looked for in the cache or downloaded.
    Package(String),
    /// Something the person who builds should know.
    Warning(String),
    /// The kernel is unpacked.
    Kernel(String),
    /// The initramfs is put together.
    Initramfs,
    /// The image is written and read again.
    Write(PathBuf),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Package(name) => write!(f, "package {name}"),
            Self::Warning(text) => write!(f, "warning: {text}"),
            Self::Kernel(release) => write!(f, "kernel {release}"),
            Self::Initramfs => write!(f, "initramfs"),
            Self::Write(path) => write!(f, "image {}", path.display()),
        }
    }
}

/// An image that was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// Where it is.
    pub directory: PathBuf,
    /// Its description.
    pub image: QemuImage,
    /// What was reported as [`Step::Warning`].
    pub warnings: Vec<String>,
    /// Size of the kernel, in bytes.
    pub kernel_bytes: usize,
    /// Size of the initramfs, in bytes.
    pub initramfs_bytes: usize,
    /// How long it took.
    pub took: Duration,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The manifest compiled in is broken.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// There are no pins.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// A package cannot be had.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// A package cannot be read.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// A package lacks what it is there for.
    #[error("the package {package} has no {what}")]
    Content {
        /// The package.
        package: String,
        /// What was looked for.
        what: &'static str,
    },
    /// A program would not run in the guest.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The kernel cannot be unpacked.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel's modules do not fit together.
    #[error(transparent)]
    Modules(#[from] ModuleError),
    /// The manifest contradicts itself.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The image cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// What was written does not read back the same.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

/// Builds an image. Blocking: some seconds with a filled cache. Cancelled between any two steps (by ending the process) it leaves at
/// most a hidden scratch directory beside the output and never half an image.
///
/// # Errors
/// When an input is missing or wrong, or the output cannot be written. What was at the output before is untouched then.
pub fn build(options: &BuildOptions, progress: &mut dyn FnMut(Step)) -> Result<Built, BuildError> {
    let started = Instant::now();
    let manifest = Manifest::parse(QEMU)?;
    let ingredients = Ingredients::gather(options, progress)?;
    let inputs = ingredients.hashes();
    let warnings = ingredients.warnings();
    let kernel = unpack_kernel(&ingredients.kernel, progress)?;
    progress(Step::Initramfs);
    let programs = ingredients.programs()?;
    let agent = programs.agent_name.to_owned();
    let modules = kernel.modules.resolve(&manifest.modules)?;
    let initramfs = archive::write(&tree(&manifest, programs, modules)?)
        .map_err(|source| OutputError { path: options.output.join(INITRAMFS), source })?;
    let contents = Contents { kernel: &kernel.vmlinux, initramfs: &initramfs };
    let image = QemuImage {
        format: QemuImage::FORMAT,
        kernel_release: kernel.release,
        kernel_arguments: manifest.kernel_arguments,
        agent,
        userland: Some(format!("/{}", manifest.userland.path)),
        inputs,
        outputs: contents.hashes(),
    };
    progress(Step::Write(options.output.clone()));
    write(&options.output, &contents, &image)?;
    Ok(Built {
        directory: options.output.clone(),
        image: verify(&options.output)?,
        warnings,
        kernel_bytes: kernel.vmlinux.len(),
        initramfs_bytes: initramfs.len(),
        took: started.elapsed(),
    })
}

/// Everything an image is made from, found and checked.
struct Ingredients {
    kernel: Package,
    busybox: Package,
    guest: Vec<u8>,
    agent_name: &'static str,
    agent: Vec<u8>,
}

impl Ingredients {
    fn gather(options: &BuildOptions, progress: &mut dyn FnMut(Step)) -> Result<Self, BuildError> {
        // Programs first: a wrong one is the likeliest fault and the cheapest to find.
        let guest = read_static(&options.guest)?;
        let (agent_name, agent) = match &options.agent {
            Some(path) => ("kata-agent", path),
            None => ("miniagent", &options.miniagent),
        };
        let agent = read_static(agent)?;
        let pins = Pins::load(options.pins.as_deref())?;
        let network = if options.offline { Network::Forbidden } else { Network::Allowed };
        let mut package = |pin: &Pin| -> Result<Package, BuildError> {
            progress(Step::Package(format!("{} {}", pin.package, pin.version)));
            let package = fetch(pin, &options.cache, network)?;
            package.warning.iter().for_each(|text| progress(Step::Warning(text.clone())));
            Ok(package)
        };
        let kernel = package(&pins.kernel)?;
        let busybox = package(&pins.busybox)?;
        Ok(Self { kernel, busybox, guest, agent_name, agent })
    }

    /// What went in, for the description: name → sha256.
    fn hashes(&self) -> BTreeMap<String, String> {
        let packages = [&self.kernel, &self.busybox]
            .map(|p| (format!("{} {}", p.pin.package, p.pin.version), p.pin.sha256.clone()));
        let files = [
            ("peerpods-guest", &*self.guest),
            (self.agent_name, &*self.agent),
            ("manifest", QEMU.as_bytes()),
        ]
        .map(|(name, bytes)| (name.to_owned(), sha256(bytes)));
        let ability = GUEST_ADMITTED_BY_TOKEN.as_bytes();
        let able = self.guest.windows(ability.len()).any(|bytes| bytes == ability);
        let ability = able.then(|| (QemuImage::ADMITTED_BY_TOKEN.to_owned(), sha256(&self.guest)));
        packages.into_iter().chain(files).chain(ability).collect()
    }

    fn warnings(&self) -> Vec<String> {
        [&self.kernel, &self.busybox].into_iter().filter_map(|p| p.warning.clone()).collect()
    }

    fn programs(self) -> Result<Programs, BuildError> {
        let busybox = read_busybox(&self.busybox)?;
        Ok(Programs { guest: self.guest, agent_name: self.agent_name, agent: self.agent, busybox })
    }
}

fn read_busybox(package: &Package) -> Result<Vec<u8>, BuildError> {
    // `usr/bin` since Debian 13.
    let files = read_files(&package.path, |path| path == "bin/busybox" || path == "usr/bin/busybox")?;
    let (path, bytes) = files
        .into_iter()
        .next()
        .ok_or_else(|| BuildError::Content { package: package.pin.package.clone(), what: "busybox" })?;
    check_static(Path::new(&path), &bytes)?;
    Ok(bytes)
}

struct Kernel {
    release: String,
    vmlinux: Vec<u8>,
    modules: Modules,
}

fn unpack_kernel(package: &Package, progress: &mut dyn FnMut(Step)) -> Result<Kernel, BuildError> {
    const IMAGE: &str = "boot/vmlinuz-";
    let is_module =
        |path: &str| path.ends_with(".ko") || path.ends_with(".ko.xz") || path.ends_with("/modules.builtin");
    let mut files = read_files(&package.path, |path| path.starts_with(IMAGE) || is_module(path))?;
    let found = files.keys().find_map(|path| Some((path.clone(), path.strip_prefix(IMAGE)?.to_owned())));
    let missing = || BuildError::Content { package: package.pin.package.clone(), what: "kernel" };
    let (path, release) = found.ok_or_else(missing)?;
    progress(Step::Kernel(release.clone()));
    let image = files.remove(&path).ok_or_else(missing)?;
    let vmlinux = extract_vmlinux(&image)?;
    Ok(Kernel { release, vmlinux, modules: Modules::from_files(relative(files)) })
}

/// Modules live in `lib/modules` whether the package says so or `usr/lib/modules` (Debian 13).
fn relative(files: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    files
        .into_iter()
        .map(|(path, bytes)| (path.strip_prefix("usr/").map(str::to_owned).unwrap_or(path), bytes))
        .collect()
}
