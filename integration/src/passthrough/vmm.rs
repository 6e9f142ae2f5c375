//! The two VMMs that take turns in L1.

use crate::l1::{Builder, Job, L1};
use crate::machines;
use anyhow::Result;
use kagero_images::tiny;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

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
        let l1 = l1.file(machines::FIRMWARE, machines::FIRMWARE);
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

    /// Starts the guest with these devices, and waits until its first process runs. Says how long that took, and returns it.
    ///
    /// # Errors
    /// L1 died, or the guest does not come up in two minutes.
    pub fn start<'a>(self, l1: &'a L1, append: &str, addresses: &[String]) -> Result<(Job<'a>, Duration)> {
        let begin = Instant::now();
        let mut guest = l1.spawn(&self.command(append, addresses))?;
        guest.expect(tiny::STARTED, Duration::from_secs(120))?;
        let took = begin.elapsed();
        println!("{self:?}, {} devices: {:.1} s to the guest's init", addresses.len(), took.as_secs_f64());
        Ok((guest, took))
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

/// The drivers of the devices at these addresses in L1; a dash where there is none.
///
/// # Errors
/// L1 died.
pub fn drivers(l1: &L1, addresses: &[String]) -> Result<Vec<String>> {
    let script = format!(
        "for a in {}; do d=/sys/bus/pci/devices/$a/driver; if [ -e $d ]; then basename $(readlink $d); else echo -; fi; done",
        addresses.join(" ")
    );
    let said = l1.run(&script, Duration::from_secs(30))?.expect_success()?;
    Ok(said.lines().map(str::to_owned).collect())
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
