//! The QEMU command line of a VM. Pure: what a VM is, in QEMU's words.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use peerpods_podvm::network::MacAddr;
use peerpods_podvm::underlay::Underlay;
use peerpods_podvm::user_data::FW_CFG_NAME;

use crate::accel::Accelerator;
use crate::config::Size;

/// What QEMU may no longer do once it runs. `spawn` and `elevateprivileges` cannot be denied as well: QEMU detaches only after it
/// has shut itself in, and then ends without a word (seen with 10.0.2).
pub(crate) const SANDBOX: &str = "on,obsolete=deny,resourcecontrol=deny";

/// Whether this QEMU can shut itself into a seccomp sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seccomp {
    /// It can.
    Built,
    /// It was built without.
    Absent,
}

/// Everything of a VM that its command line tells.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) size: Size,
    pub(crate) accelerator: Accelerator,
    pub(crate) seccomp: Seccomp,
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    pub(crate) kernel_arguments: Vec<String>,
    pub(crate) underlay: Underlay,
    pub(crate) mac: MacAddr,
    pub(crate) tap: String,
    pub(crate) console: PathBuf,
    pub(crate) qmp: PathBuf,
    pub(crate) pid_file: PathBuf,
    pub(crate) user_data: PathBuf,
}

impl Machine {
    /// QEMU's arguments, program not included.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut line = Line::default();
        line.flags(&["-nodefaults", "-no-user-config", "-no-reboot", "-daemonize"]);
        line.option("-display", "none");
        line.option("-name", format!("{},debug-threads=on", quoted(Path::new(&self.name)).display()));
        line.option("-uuid", &self.uuid);
        line.option("-pidfile", &self.pid_file);
        if self.seccomp == Seccomp::Built {
            line.option("-sandbox", SANDBOX);
        }
        self.processor(&mut line);
        line.option("-kernel", &self.kernel);
        line.option("-initrd", &self.initramfs);
        line.option("-append", self.kernel_command_line());
        line.option("-fw_cfg", with_path(&format!("name={FW_CFG_NAME},file="), &self.user_data, ""));
        self.devices(&mut line);
        line.0
    }

    fn processor(&self, line: &mut Line) {
        let (accel, cpu) = match self.accelerator {
            Accelerator::Kvm => ("kvm", "host"),
            Accelerator::Tcg => ("tcg", "max"),
        };
        line.option("-machine", "q35");
        line.option("-accel", accel);
        line.option("-cpu", cpu);
        line.option("-smp", self.size.vcpus.to_string());
        line.option("-m", self.size.memory_mib.to_string());
    }

    fn devices(&self, line: &mut Line) {
        line.option("-netdev", format!("tap,id=net0,ifname={},script=no,downscript=no", self.tap));
        line.option("-device", format!("virtio-net-pci,netdev=net0,mac={},romfile=", self.mac));
        line.option("-device", "virtio-rng-pci");
        line.option("-chardev", with_path("file,id=console,path=", &self.console, ",append=on"));
        line.option("-serial", "chardev:console");
        line.option("-chardev", with_path("socket,id=qmp,path=", &self.qmp, ",server=on,wait=off"));
        line.option("-mon", "chardev=qmp,mode=control");
    }

    /// The image's own arguments, then ours; a console or a panic time of the image's wins.
    fn kernel_command_line(&self) -> String {
        let given = |key: &str| self.kernel_arguments.iter().any(|a| a.starts_with(key));
        let mut words = self.kernel_arguments.clone();
        // Under software emulation both defences cost time (some 0.4 s of a boot) and defend nothing.
        let emulated: &[&str] = match self.accelerator {
            Accelerator::Kvm => &[],
            Accelerator::Tcg => &["nokaslr", "mitigations=off"],
        };
        let ours = ["console=ttyS0", "panic=-1"].iter().chain(emulated);
        words.extend(ours.filter(|w| !given(key_of(w))).map(|w| (*w).to_owned()));
        words.push(self.underlay.kernel_argument());
        words.join(" ")
    }
}

/// The part of a kernel argument up to and with `=`.
fn key_of(argument: &str) -> &str {
    argument.split_inclusive('=').next().unwrap_or(argument)
}

#[derive(Default)]
struct Line(Vec<OsString>);

impl Line {
    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(OsString::from));
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }
}

fn with_path(before: &str, path: &Path, after: &str) -> OsString {
    let mut value = OsString::from(before);
    value.push(quoted(path));
    value.push(after);
    value
}

/// A value inside a list of options: QEMU reads two commas as one.
fn quoted(path: &Path) -> PathBuf {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let doubled = path.as_os_str().as_bytes().iter().flat_map(|b| match b {
        b',' => vec![b',', b','],
        other => vec![*other],
    });
    OsString::from_vec(doubled.collect()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            name: "podvm-web-01234567".to_owned(),
            uuid: "01234567-89ab-8def-8123-456789abcdef".to_owned(),
            size: Size { vcpus: 2, memory_mib: 512 },
            accelerator: Accelerator::Tcg,
            seccomp: Seccomp::Built,
            kernel: "/image/vmlinux".into(),
            initramfs: "/image/initramfs.cpio".into(),
            kernel_arguments: vec!["quiet".to_owned(), "console=ttyS0,115200".to_owned()],
            underlay: "10.158.0.2/24,10.158.0.1,1500".parse().unwrap(),
            mac: "02:70:0a:9e:00:02".parse().unwrap(),
            tap: "ppt0123456789ab".to_owned(),
            console: "/state/a.log".into(),
            qmp: "/run/a/qmp.sock".into(),
            pid_file: "/run/a/pid".into(),
            user_data: "/run/a/user-data".into(),
        }
    }

    fn text(machine: &Machine) -> Vec<String> {
        machine.arguments().into_iter().map(|a| a.into_string().unwrap()).collect()
    }

    #[test]
    fn the_whole_command_line_is_this() {
        let golden = "\
-nodefaults
-no-user-config
-no-reboot
-daemonize
-display
none
-name
podvm-web-01234567,debug-threads=on
-uuid
01234567-89ab-8def-8123-456789abcdef
-pidfile
/run/a/pid
-sandbox
on,obsolete=deny,resourcecontrol=deny
-machine
q35
-accel
tcg
-cpu
max
-smp
2
-m
512
-kernel
/image/vmlinux
-initrd
/image/initramfs.cpio
-append
quiet console=ttyS0,115200 panic=-1 nokaslr mitigations=off peerpods.underlay=10.158.0.2/24,10.158.0.1,1500
-fw_cfg
name=opt/org.peerpods/user-data,file=/run/a/user-data
-netdev
tap,id=net0,ifname=ppt0123456789ab,script=no,downscript=no
-device
virtio-net-pci,netdev=net0,mac=02:70:0a:9e:00:02,romfile=
-device
virtio-rng-pci
-chardev
file,id=console,path=/state/a.log,append=on
-serial
chardev:console
-chardev
socket,id=qmp,path=/run/a/qmp.sock,server=on,wait=off
-mon
chardev=qmp,mode=control";
        assert_eq!(text(&machine()).join("\n"), golden);
    }

    #[test]
    fn kvm_shows_the_hosts_processor_and_a_qemu_without_seccomp_is_not_asked_for_it() {
        let words =
            text(&Machine { accelerator: Accelerator::Kvm, seccomp: Seccomp::Absent, ..machine() }).join(" ");
        assert!(words.contains("-accel kvm -cpu host") && !words.contains("-sandbox"), "{words}");
    }

    #[test]
    fn a_comma_in_a_path_ends_no_option() {
        let words = text(&Machine { console: "/state/a,b.log".into(), ..machine() }).join(" ");
        assert!(words.contains("path=/state/a,,b.log,append=on"), "{words}");
    }
}
