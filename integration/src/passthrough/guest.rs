//! The guest that tries every device.

use super::devices::Devices;
use super::tone;
use crate::l1::L1;
use anyhow::{Context, Result};
use kagero_images::initramfs::Initramfs;
use kagero_images::kernel::Kernel;
use kagero_images::tiny;
use std::path::Path;
use std::time::Duration;
use std::{fmt, fs};

/// Drivers for the devices, and what makes them useful. `snd_pcm_oss` is `/dev/dsp`, which takes plain samples.
const MODULES: [&str; 10] = [
    "e1000e",
    "nvme",
    "xhci_pci",
    "usb_storage",
    "uas",
    "isofs",
    "snd_hda_codec_generic",
    "snd_hda_intel",
    "snd_pcm_oss",
    "bochs",
];

/// What checks run besides busybox.
const PROGRAMS: [&str; 2] = ["/usr/bin/fio", "/usr/bin/ping"];

/// Something that the guest does with its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Draws bands of colour on both displays, which go on showing them.
    Display,
    /// Has a link, and 10,000 pings to L0 answered.
    Network,
    /// The same with 1,000.
    Link,
    /// Writes to the NVMe disk and verifies.
    Nvme,
    /// The same with the USB stick.
    Usb,
    /// Compares the CD's files with their checksums.
    Cd,
    /// Plays [`super::TONE`].
    Sound,
    /// Removes the drivers and loads them again.
    Reload,
    /// Writes all over the configuration space of the network card and the NVMe disk, and lets the kernel place their BARs anew.
    Config,
    /// Lets the DMA engine of [`Device::Edu`](super::Device::Edu) copy inside of the guest's memory, and then to [`Check::OUTSIDE`].
    Dma,
}

impl Check {
    /// One for each of the seven devices: displays first, the others all at once.
    pub const ALL: [&[Check]; 2] =
        [&[Check::Display], &[Check::Network, Check::Nvme, Check::Usb, Check::Cd, Check::Sound]];

    /// A guest-physical address where a guest of 512 MiB has no memory.
    pub const OUTSIDE: u32 = 0x6000_0000;

    /// As it is called in the guest's verdict.
    pub fn name(self) -> &'static str {
        match self {
            Check::Display => "display",
            Check::Network => "network",
            Check::Link => "link",
            Check::Nvme => "nvme",
            Check::Usb => "usb",
            Check::Cd => "cd",
            Check::Sound => "sound",
            Check::Reload => "reload",
            Check::Config => "config",
            Check::Dma => "dma",
        }
    }

    fn script(self) -> &'static str {
        match self {
            Check::Display => include_str!("checks/display.sh"),
            Check::Network => concat!("pings=10000\n", include_str!("checks/network.sh")),
            Check::Link => concat!("pings=1000\n", include_str!("checks/network.sh")),
            Check::Nvme => include_str!("checks/nvme.sh"),
            Check::Usb => include_str!("checks/usb.sh"),
            Check::Cd => include_str!("checks/cd.sh"),
            Check::Sound => include_str!("checks/sound.sh"),
            Check::Reload => include_str!("checks/reload.sh"),
            Check::Config => include_str!("checks/config.sh"),
            Check::Dma => include_str!("checks/dma.sh"),
        }
    }
}

/// How the guest's devices interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupts {
    /// MSI-X and MSI.
    Messages,
    /// INTx.
    Pins,
}

impl Interrupts {
    /// What tells the guest's kernel so.
    pub fn append(self) -> &'static str {
        match self {
            Interrupts::Messages => "",
            Interrupts::Pins => "pci=nomsi",
        }
    }

    /// How a check's verdict begins when its device interrupts this way; the displays don't interrupt.
    pub fn of(self, check: Check) -> &'static str {
        match (self, check) {
            (_, Check::Display | Check::Reload | Check::Config | Check::Dma) => "",
            (Interrupts::Pins, _) => "intx ",
            (Interrupts::Messages, Check::Cd | Check::Sound) => "msi ",
            (Interrupts::Messages, Check::Network | Check::Link | Check::Nvme | Check::Usb) => "msix ",
        }
    }
}

/// Puts a guest where [`super::Vmm::command`] finds it. It loads the drivers and runs these checks: stage by stage, those of
/// a stage all at once.
///
/// # Errors
/// The kernel or a program is missing, or the disk is full.
pub fn with_checks(l1: &L1, devices: &Devices, stages: &[&[Check]]) -> Result<()> {
    let kernel = Kernel::fetch()?;
    let mut script = format!("drivers='{}'\n{}", MODULES.join(" "), include_str!("checks/run.sh"));
    for stage in stages {
        let names: Vec<&str> = stage.iter().map(|check| check.name()).collect();
        script += &format!("stage {}\n", names.join(" "));
    }
    let mut guest = tiny::guest(&kernel, &script)?;
    guest.modules(&kernel, &MODULES)?;
    for program in PROGRAMS {
        guest.program(Path::new(program))?;
    }
    guest.script("checks/common", include_str!("checks/common.sh"));
    for check in stages.iter().copied().flatten() {
        guest.script(&format!("checks/{}", check.name()), check.script());
    }
    let samples = l1.share().join("tone");
    fs::write(&samples, tone::samples(3))?;
    guest.file("checks/tone", samples);
    guest.file("checks/cd.sha256", devices.cd_checksums());
    put(&guest, &kernel, l1)
}

/// Puts a guest there that loads the drivers and runs a script.
///
/// # Errors
/// As [`with_checks`].
pub fn with_script(l1: &L1, script: &str) -> Result<()> {
    let kernel = Kernel::fetch()?;
    let mut guest = tiny::guest(&kernel, script)?;
    guest.modules(&kernel, &MODULES)?;
    put(&guest, &kernel, l1)
}

/// Reading it through the shared folder would cost each start of a VMM some seconds.
fn put(guest: &Initramfs, kernel: &Kernel, l1: &L1) -> Result<()> {
    guest.write(&l1.share().join("tiny.cpio"))?;
    fs::copy(kernel.vmlinux(), l1.share().join("vmlinux")).context("the guest's kernel")?;
    let copied = l1.run("cp /share/tiny.cpio /share/vmlinux /tmp", Duration::from_secs(60))?;
    copied.expect_success().map(drop)
}

/// What the guest says about one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The check's name.
    pub name: String,
    /// Whether it works.
    pub ok: bool,
    /// How the device interrupts and how often, what was done with it and how long that took; or what is wrong.
    pub details: String,
}

/// The verdicts in what a guest wrote to its console, in the order in which they came.
pub fn verdicts(console: &str) -> Vec<Verdict> {
    let verdict = |line: &str| {
        let line = line.trim_end();
        let (ok, rest) = match line.strip_prefix("ok: ") {
            Some(rest) => (true, rest),
            None => (false, line.strip_prefix("failed: ")?),
        };
        let (name, details) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(Verdict { name: name.to_owned(), ok, details: details.to_owned() })
    };
    console.lines().filter_map(verdict).collect()
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", if self.ok { "ok" } else { "failed" }, self.name, self.details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_found_among_other_lines() {
        let found = verdicts("boot\nok: nvme msix 2 lines: fine\r\nfailed: cd\nok then\n");
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].to_string(), "ok: nvme msix 2 lines: fine");
        assert!(found[0].details.starts_with(Interrupts::Messages.of(Check::Nvme)));
        assert_eq!((found[1].ok, &*found[1].name), (false, "cd"));
    }
}
