//! The VM's own address, told on the kernel command line so that no DHCP is needed: `peerpods.underlay=ADDRESS/LEN,GATEWAY,MTU`.
//! A format of our own, between our QEMU provider and our guest.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// The key on the kernel command line.
pub const KERNEL_ARGUMENT: &str = "peerpods.underlay";

/// The VM's own network, by which the worker reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Underlay {
    /// The VM's address and the length of its prefix.
    pub address: IpNet,
    /// The worker's address on the same network.
    pub gateway: IpAddr,
    /// MTU in bytes.
    pub mtu: u32,
}

/// A text that is no underlay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no underlay (want ADDRESS/LEN,GATEWAY,MTU, as in 10.158.0.2/24,10.158.0.1,1500)")]
pub struct UnderlayError(String);

impl Underlay {
    /// The whole kernel argument, key included.
    #[must_use]
    pub fn kernel_argument(&self) -> String {
        format!("{KERNEL_ARGUMENT}={self}")
    }

    /// Finds the underlay on a kernel command line; `None` when it is not there.
    ///
    /// # Errors
    /// When the key is there and its value cannot be read.
    pub fn from_command_line(line: &str) -> Result<Option<Self>, UnderlayError> {
        line.split_ascii_whitespace()
            .filter_map(|word| word.split_once('='))
            .find(|(key, _)| *key == KERNEL_ARGUMENT)
            .map(|(_, value)| value.parse())
            .transpose()
    }
}

impl fmt::Display for Underlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.address, self.gateway, self.mtu)
    }
}

impl FromStr for Underlay {
    type Err = UnderlayError;

    fn from_str(text: &str) -> Result<Self, UnderlayError> {
        let bad = || UnderlayError(text.to_owned());
        let mut parts = text.split(',');
        let mut next = || parts.next().ok_or_else(bad);
        let address = next()?.parse().map_err(|_| bad())?;
        let gateway = next()?.parse().map_err(|_| bad())?;
        let mtu = next()?.parse().map_err(|_| bad())?;
        if parts.next().is_some() { Err(bad()) } else { Ok(Self { address, gateway, mtu }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_from_a_command_line() {
        let underlay: Underlay = "10.158.0.2/24,10.158.0.1,1500".parse().unwrap();
        let line = format!("console=ttyS0 {} quiet", underlay.kernel_argument());
        assert_eq!(Underlay::from_command_line(&line), Ok(Some(underlay)));
        assert_eq!(Underlay::from_command_line("quiet"), Ok(None));
    }

    #[test]
    fn a_broken_value_is_an_error_and_not_an_absence() {
        for bad in
            ["", "10.0.0.1", "10.0.0.1/24,10.0.0.2", "10.0.0.1/24,10.0.0.2,x", "10.0.0.1/24,10.0.0.2,1,2"]
        {
            assert!(Underlay::from_command_line(&format!("peerpods.underlay={bad}")).is_err(), "{bad:?}");
        }
    }
}
