//! The guest that tries every device.

use super::devices::{Device, Devices};
use super::tone;
use crate::l1::L1;
use anyhow::{Context, Result};
use kagero_images::initramfs::Initramfs;
use kagero_images::kernel::Kernel;
use kagero_images::tiny;
use std::fs;
use std::path::Path;
use std::time::Duration;

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

/// The checks in the order in which they run, and their scripts. The displays come first: they go on showing what they show.
const CHECKS: [(&str, &str); 6] = [
    ("display", include_str!("checks/display.sh")),
    ("network", include_str!("checks/network.sh")),
    ("nvme", include_str!("checks/nvme.sh")),
    ("usb", include_str!("checks/usb.sh")),
    ("cd", include_str!("checks/cd.sh")),
    ("sound", include_str!("checks/sound.sh")),
];

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
    pub fn of(self, check: &str) -> &'static str {
        match (self, check) {
            (_, "display") => "",
            (Interrupts::Pins, _) => "intx",
            (Interrupts::Messages, "cd" | "sound") => "msi ",
            (Interrupts::Messages, _) => "msix",
        }
    }
}

/// The guest in L1's own memory, where [`super::Vmm::command`] finds it.
#[derive(Debug)]
pub struct Guest;

impl Guest {
    /// One that runs the checks of these devices.
    ///
    /// # Errors
    /// The kernel or a program is missing, or the disk is full.
    pub fn with_checks(l1: &L1, devices: &Devices, checked: &[Device]) -> Result<Vec<&'static str>> {
        let names: Vec<&str> = CHECKS.iter().map(|(name, _)| *name).collect();
        let wanted = |name: &&str| checked.iter().any(|device| device.name() == *name);
        let names: Vec<&str> = names.into_iter().filter(wanted).collect();
        let kernel = Kernel::fetch()?;
        let script = format!(
            "modprobe -a {}\nfor name in {}; do\n{}done\n",
            MODULES.join(" "),
            names.join(" "),
            include_str!("checks/run.sh")
        );
        let mut guest = tiny::guest(&kernel, &script)?;
        guest.modules(&kernel, &MODULES)?;
        for program in ["/usr/bin/fio", "/usr/bin/ping"] {
            guest.program(Path::new(program))?;
        }
        guest.script("checks/common", include_str!("checks/common.sh"));
        for (name, check) in CHECKS {
            guest.script(&format!("checks/{name}"), check);
        }
        let samples = l1.share().join("tone");
        fs::write(&samples, tone::samples(3))?;
        guest.file("checks/tone", samples);
        guest.file("checks/cd.sha256", devices.cd_checksums());
        write(&guest, &kernel, l1)?;
        Ok(names)
    }

    /// One that powers off at once.
    ///
    /// # Errors
    /// As [`Self::with_checks`].
    pub fn without_checks(l1: &L1) -> Result<()> {
        let kernel = Kernel::fetch()?;
        write(&tiny::guest(&kernel, "")?, &kernel, l1)
    }
}

/// Reading it through the shared folder would cost each start of a VMM some seconds.
fn write(guest: &Initramfs, kernel: &Kernel, l1: &L1) -> Result<()> {
    guest.write(&l1.share().join("tiny.cpio"))?;
    fs::copy(kernel.vmlinux(), l1.share().join("vmlinux")).context("the guest's kernel")?;
    let copied = l1.run("cp /share/tiny.cpio /share/vmlinux /tmp", Duration::from_secs(60))?;
    copied.expect_success().map(drop)
}

/// What the guest says about one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The check.
    pub name: String,
    /// Whether it works.
    pub ok: bool,
    /// How it interrupts and how often, what was done with it and how long that took; or what is wrong.
    pub details: String,
}

/// The verdicts in what a guest wrote to its console.
pub fn verdicts(console: &str) -> Vec<Verdict> {
    let verdict = |line: &str| {
        let mut words = line.trim_end().splitn(3, ' ');
        let ok = match words.next()? {
            "ok" => true,
            "failed" => false,
            _ => return None,
        };
        let name = words.next()?.to_owned();
        CHECKS.iter().any(|(check, _)| *check == name).then_some(())?;
        Some(Verdict { name, ok, details: words.next().unwrap_or_default().to_owned() })
    };
    console.lines().filter_map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_found_among_other_lines() {
        let found = verdicts("boot\nok nvme msix 2 99: fine\r\nfailed cd\nok then\n");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].ok, &*found[0].details), (true, "msix 2 99: fine"));
        assert!(found[0].details.starts_with(Interrupts::Messages.of("nvme")));
        assert_eq!((found[1].ok, &*found[1].name), (false, "cd"));
    }
}
