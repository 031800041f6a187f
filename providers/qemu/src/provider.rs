//! [`QemuProvider`]: the methods of a provider, each handed to the module that does it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use peerpods_podvm::ClusterId;
use peerpods_podvm::image::GuestAdmission;
use peerpods_provider::{Facts, Instance, Provider, ProviderError, VmKey, VmSpec};
use tokio::sync::OnceCell;

use crate::accel::{self, Basis, Choice};
use crate::caller::Caller;
use crate::command::Seccomp;
use crate::config::{Accel, QemuConfig};
use crate::failure::Failure;
use crate::image::{self, Image};
use crate::places::Places;
use crate::{birth, look, program, removal, verify};

/// Makes pod VMs as QEMU processes of this host. Holds nothing but caches: what there is stands in the state directory.
#[derive(Clone)]
pub struct QemuProvider {
    node: Arc<Node>,
}

/// What all calls of one provider share.
pub(crate) struct Node {
    pub(crate) config: QemuConfig,
    pub(crate) places: Places,
    choice: OnceCell<Choice>,
    seccomp: OnceCell<Seccomp>,
    /// Images whose files were found to be whole, by directory.
    checked: Mutex<HashMap<PathBuf, Image>>,
}

impl QemuProvider {
    /// A provider by `config`, which [`Provider::verify`] judges. Touches nothing.
    #[must_use]
    pub fn new(config: QemuConfig) -> Self {
        let places = Places::of(&config);
        let node = Node {
            config,
            places,
            choice: OnceCell::new(),
            seccomp: OnceCell::new(),
            checked: Mutex::default(),
        };
        Self { node: Arc::new(node) }
    }

    /// Runs a work to its end in a task of its own: a caller that is dropped must not leave a VM half made and its lock open.
    async fn to_the_end<T: Send + 'static, W>(
        operation: String,
        work: impl FnOnce(Caller) -> W,
    ) -> Result<T, ProviderError>
    where
        W: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let caller = Caller::default();
        let _waiting = caller.waits();
        let outcome = match tokio::spawn(work(caller)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Failure::Task(error)),
        };
        outcome.map_err(|failure| failure.into_provider(operation))
    }
}

#[async_trait]
impl Provider for QemuProvider {
    fn name(&self) -> &'static str {
        "qemu"
    }

    async fn verify(&self) -> Result<Facts, ProviderError> {
        let facts = verify::verify(&self.node).await?;
        let node = self.node.clone();
        // So that the first VM need not wait for the probe.
        tokio::spawn(async move {
            if let Ok(image) = node.image(None).await {
                node.choice(&image).await;
            }
        });
        Ok(facts)
    }

    /// Asked for each VM, because an image may be built anew. What is wrong with it, creating the VM says.
    async fn guest_admission(&self, image: Option<&str>) -> GuestAdmission {
        match self.node.image(image).await {
            Ok(image) => image.description.guest_admission(),
            Err(_) => GuestAdmission::Unknown,
        }
    }

    async fn create(&self, key: &VmKey, spec: &VmSpec) -> Result<Instance, ProviderError> {
        let (node, owner, wanted) = (self.node.clone(), key.clone(), spec.clone());
        let operation = format!("create VM {} of {key}", spec.name);
        Self::to_the_end(
            operation,
            |caller| async move { birth::create(&node, &owner, &wanted, &caller).await },
        )
        .await
    }

    async fn get(&self, key: &VmKey) -> Result<Option<Instance>, ProviderError> {
        let found = look::get(&self.node, key).await;
        found.map_err(|failure| failure.into_provider(format!("get VM of {key}")))
    }

    async fn list(&self, cluster: &ClusterId) -> Result<Vec<(VmKey, Instance)>, ProviderError> {
        let found = look::list(&self.node, cluster).await;
        found.map_err(|failure| failure.into_provider(format!("list VMs of cluster {cluster}")))
    }

    async fn delete(&self, key: &VmKey) -> Result<(), ProviderError> {
        let (node, owner) = (self.node.clone(), key.clone());
        let operation = format!("delete VM of {key}");
        Self::to_the_end(operation, |caller| async move { removal::delete(&node, &owner, &caller).await })
            .await
    }
}

impl Node {
    /// The configured image, or the one a pod named; its files are whole.
    pub(crate) async fn image(&self, name: Option<&str>) -> Result<Image, Failure> {
        let (configured, images) = (self.config.image.clone(), self.config.images_dir.clone());
        let name = name.map(str::to_owned);
        let load = move || match name {
            None => Image::load(&configured),
            Some(name) => Image::load(&image::named(images.as_deref(), &name)?),
        };
        let image = blocking(move || load().map_err(Failure::Image)).await?;
        if self.checked().get(&image.dir) == Some(&image) {
            return Ok(image);
        }
        let checked = blocking(move || image.check().map(|()| image).map_err(Failure::Image)).await?;
        self.checked().insert(checked.dir.clone(), checked.clone());
        Ok(checked)
    }

    fn checked(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Image>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What guests run on. Probed at most once; concurrent callers wait for the one probe.
    pub(crate) async fn choice(&self, image: &Image) -> Choice {
        self.choice.get_or_init(|| self.choose(image)).await.clone()
    }

    /// What guests run on, if that is known without a probe.
    pub(crate) fn choice_without_probe(&self) -> Option<Choice> {
        match self.config.accel {
            Accel::Kvm => Some(Choice::kvm("configured (qemu.accel)")),
            Accel::Tcg => Some(Choice::tcg("configured (qemu.accel)")),
            Accel::Auto => self.choice.get().cloned().or_else(accel::hopeless_here),
        }
    }

    async fn choose(&self, image: &Image) -> Choice {
        let choice = match self.choice_without_probe() {
            Some(choice) => choice,
            None => self.probe(image).await,
        };
        tracing::info!(accelerator = ?choice.accelerator, reason = choice.reason, "QEMU accelerator chosen");
        choice
    }

    async fn probe(&self, image: &Image) -> Choice {
        let basis = Basis {
            boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            qemu: program::version(&self.config.program).await.unwrap_or_default(),
            kernel: image.kernel_sha().to_owned(),
        };
        let path = self.places.accel_cache();
        if let Some(known) = accel::recall(&path, &basis) {
            return known;
        }
        let choice = accel::probe(&self.config.program, image).await;
        let kept =
            crate::record::private_dir(self.places.run()).map(|()| accel::keep(&path, &basis, &choice));
        if !matches!(kept, Ok(Ok(()))) {
            tracing::warn!(path = %path.display(), "the KVM probe's result could not be kept");
        }
        choice
    }

    /// Whether QEMU can be sandboxed; tried once. When it cannot be tried it is not, and starting the VM says why.
    pub(crate) async fn seccomp(&self) -> Seccomp {
        let tried = self.seccomp.get_or_try_init(|| program::seccomp(&self.config.program)).await;
        tried.copied().unwrap_or(Seccomp::Absent)
    }
}

/// File work that may take long, off the threads that serve others.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Failure::Task(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slow::leaves_the_thread;

    #[tokio::test]
    async fn a_slow_disk_with_images_keeps_nobody_else_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let config = QemuConfig { image: dir.path().to_owned(), ..QemuConfig::default() };
        let provider = QemuProvider::new(config);
        let description = dir.path().join(peerpods_podvm::image::DESCRIPTION);
        assert!(leaves_the_thread(&description, provider.node.image(None)));
    }
}
