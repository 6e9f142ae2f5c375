//! The two VMMs that take turns in L1.

use crate::l1::{Builder, L1};
use crate::machines;
use anyhow::Result;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// Who runs the guest in L1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vmm {
    /// The peer: QEMU with KVM, and the board that Kagero has too.
    Qemu,
    /// Ours.
    Kagero,
}

const QEMU: &str = "/usr/bin/qemu-system-x86_64";
/// What QEMU reads when it boots a kernel itself.
const QEMU_ROMS: [&str; 3] =
    ["/usr/share/qemu/pvh.bin", "/usr/share/qemu/linuxboot_dma.bin", "/usr/share/qemu/kvmvapic.bin"];

impl Vmm {
    /// An L1 with this VMM in it. More than one can be in an L1: the next is added to what this returns.
    ///
    /// # Errors
    /// Kagero is not built.
    pub fn add_to(self, l1: Builder) -> Result<Builder> {
        Ok(match self {
            Vmm::Qemu => QEMU_ROMS
                .iter()
                .filter(|rom| Path::new(rom).exists())
                .fold(l1.program(QEMU).file(machines::FIRMWARE, machines::FIRMWARE), |l1, rom| {
                    l1.file(rom, rom)
                }),
            Vmm::Kagero => l1.program(machines::kagero()?),
        })
    }

    /// Gets the devices at these addresses ready. QEMU wants vfio-pci to have them; Kagero does that itself.
    ///
    /// # Errors
    /// L1 died, or a device can't be bound.
    pub fn prepare(self, l1: &L1, addresses: &[String]) -> Result<()> {
        match self {
            Vmm::Qemu => bind(l1, addresses),
            Vmm::Kagero => l1
                .run("modprobe -a vfio_pci vfio_iommu_type1", Duration::from_secs(30))?
                .expect_success()
                .map(drop),
        }
    }

    /// The shell command that runs the guest of `/tmp/vmlinux` and `/tmp/tiny.cpio` with these devices; its serial console is
    /// standard output.
    pub fn command(self, append: &str, addresses: &[String]) -> String {
        let mut line = match self {
            Vmm::Qemu => "exec qemu-system-x86_64 -machine pc -accel kvm -cpu host -smp 1 -m 512 \
                -nodefaults -display none -serial stdio -no-reboot \
                -kernel /tmp/vmlinux -initrd /tmp/tiny.cpio"
                .to_owned(),
            Vmm::Kagero => "exec kagero run --memory 512M --bind --report /share/run.json \
                --kernel /tmp/vmlinux --initrd /tmp/tiny.cpio"
                .to_owned(),
        };
        let _ = write!(line, " -append 'console=ttyS0 quiet {append}'");
        for address in addresses {
            let _ = match self {
                Vmm::Qemu => write!(line, " -device vfio-pci,host={address}"),
                Vmm::Kagero => write!(line, " --passthrough {address}"),
            };
        }
        // Both have the word, spelled in their own ways.
        if self == Vmm::Kagero { line.replace(" -append ", " --append ") } else { line }
    }
}

/// Gives devices to vfio-pci, and nothing else.
fn bind(l1: &L1, addresses: &[String]) -> Result<()> {
    let script = format!(
        r#"modprobe -a vfio_pci vfio_iommu_type1 || exit
        for address in {}; do
            device=/sys/bus/pci/devices/$address
            echo vfio-pci >$device/driver_override
            [ ! -e $device/driver ] || echo $address >$device/driver/unbind
            echo $address >/sys/bus/pci/drivers_probe
            [ "$(basename $(readlink $device/driver))" = vfio-pci ] || {{ echo $address: not bound >&2; exit 1; }}
        done"#,
        addresses.join(" ")
    );
    l1.run(&script, Duration::from_secs(60))?.expect_success().map(drop)
}
