//! What stands behind a VM of the fake cloud.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use async_trait::async_trait;
use ipnet::{IpNet, Ipv4Net};
use peerpods_podvm::image::GuestAdmission;

use crate::UserData;

/// One VM to be brought up.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Counts the cloud's VMs from 1; never used twice.
    pub number: u64,
    /// The VM's name.
    pub name: &'a str,
    /// What the guest is told.
    pub user_data: &'a UserData,
}

/// Brings up what stands behind the VMs of a [`FakeCloud`](super::FakeCloud).
#[async_trait]
pub trait Launcher: Send + Sync {
    /// Brings up one VM. The cloud calls it in a task of its own, which is never dropped half-way.
    ///
    /// # Errors
    /// When it could not be brought up; then nothing of it is left.
    async fn launch(&self, launch: Launch<'_>) -> io::Result<Box<dyn FakeVm>>;

    /// The worker's address as these VMs see it; `None` means the node's own.
    fn worker_address(&self) -> Option<IpNet>;

    /// What is known of the guests it brings up.
    fn guest_admission(&self) -> GuestAdmission {
        GuestAdmission::Unknown
    }

    /// What VMs left on this host although all are removed.
    fn leftovers(&self) -> Vec<String>;
}

/// What stands behind one VM.
#[async_trait]
pub trait FakeVm: Send + Sync {
    /// Where it can be reached.
    fn addresses(&self) -> Vec<IpAddr>;

    /// Its console output.
    fn console(&self) -> Option<PathBuf>;

    /// Whether what runs inside still runs.
    fn running(&self) -> bool;

    /// Pulls the plug: what runs inside ends, the VM itself remains. Idempotent.
    ///
    /// # Errors
    /// When it could not be stopped.
    async fn power_off(&self) -> io::Result<()>;

    /// Removes it with everything in it. Idempotent.
    ///
    /// # Errors
    /// When something may be left; calling again continues.
    async fn remove(&self) -> io::Result<()>;
}

/// VMs with an address and nothing behind it.
#[derive(Debug, Clone, Copy)]
pub struct Bare {
    first: Ipv4Addr,
    spread: Spread,
}

#[derive(Debug, Clone, Copy)]
enum Spread {
    Same,
    Counted,
}

impl Bare {
    /// Every VM has a loopback address of its own (127.1.0.1, 127.1.0.2, …), so that a test can listen on one port for each.
    #[must_use]
    pub fn new() -> Self {
        Self { first: Ipv4Addr::new(127, 1, 0, 0), spread: Spread::Counted }
    }

    /// Every VM has this address.
    #[must_use]
    pub fn at(address: Ipv4Addr) -> Self {
        Self { first: address, spread: Spread::Same }
    }

    fn address(self, number: u64) -> Ipv4Addr {
        match self.spread {
            Spread::Same => self.first,
            Spread::Counted => {
                Ipv4Addr::from_bits(self.first.to_bits() | u32::try_from(number & 0xffff).unwrap_or(0))
            }
        }
    }
}

impl Default for Bare {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Launcher for Bare {
    async fn launch(&self, launch: Launch<'_>) -> io::Result<Box<dyn FakeVm>> {
        Ok(Box::new(BareVm { address: self.address(launch.number) }))
    }

    fn worker_address(&self) -> Option<IpNet> {
        Ipv4Net::new(Ipv4Addr::LOCALHOST, 8).ok().map(IpNet::V4)
    }

    fn leftovers(&self) -> Vec<String> {
        Vec::new()
    }
}

struct BareVm {
    address: Ipv4Addr,
}

#[async_trait]
impl FakeVm for BareVm {
    fn addresses(&self) -> Vec<IpAddr> {
        vec![IpAddr::V4(self.address)]
    }

    fn console(&self) -> Option<PathBuf> {
        None
    }

    fn running(&self) -> bool {
        true
    }

    async fn power_off(&self) -> io::Result<()> {
        Ok(())
    }

    async fn remove(&self) -> io::Result<()> {
        Ok(())
    }
}
