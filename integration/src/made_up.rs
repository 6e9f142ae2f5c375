//! Hosts that only consist of files: `/sys`, `/proc` and `/dev` as the kernel shows them, in a folder, with PCI functions that nobody has.
//!
//! Everything here panics when a file can't be made: it is for tests.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A host in a folder. It begins with an IOMMU, interrupt remapping and vfio-pci, and without a single PCI function.
#[derive(Debug)]
pub struct MadeUp {
    root: PathBuf,
}

impl MadeUp {
    /// Makes one in this folder.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let host = Self::at(root);
        for folder in [
            "sys/bus/pci/devices",
            "sys/class/block",
            "sys/class/net",
            "sys/dev/block",
            "sys/kernel/iommu_groups",
            "dev",
        ] {
            fs::create_dir_all(host.root.join(folder)).unwrap();
        }
        host.driver("vfio-pci");
        host.file("sys/bus/pci/drivers_probe", "");
        host.file("dev/vfio/vfio", "");
        host.file("proc/self/mountinfo", "22 27 0:21 / /proc rw,relatime - proc proc rw\n");
        host.file("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n");
        host.file(
            "proc/interrupts",
            "  CPU0\n  0: 40 IR-IO-APIC 2-edge timer\n 24: 0 IR-PCI-MSI-0000:00:1c.0 0-edge pcieport\n",
        );
        host
    }

    /// The one that was made in this folder.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file or folder in it.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Makes a file, and its folders.
    pub fn file(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Adds a line to a file.
    pub fn line(&self, path: &str, line: &str) {
        let text = fs::read_to_string(self.root.join(path)).unwrap_or_default();
        self.file(path, &format!("{text}{line}\n"));
    }

    /// Makes a link from one place in it to another.
    pub fn link(&self, from: &str, to: &str) {
        let from = self.root.join(from);
        fs::create_dir_all(from.parent().unwrap()).unwrap();
        // Relative, so that the folder may be seen elsewhere too.
        let up = "../".repeat(from.strip_prefix(&self.root).unwrap().components().count() - 1);
        symlink(format!("{up}{to}"), from).unwrap();
    }

    /// A PCI driver that is loaded.
    pub fn driver(&self, name: &str) {
        for attribute in ["bind", "unbind"] {
            let path = format!("sys/bus/pci/drivers/{name}/{attribute}");
            if !self.path(&path).exists() {
                self.file(&path, "");
            }
        }
    }

    /// A PCI function. `place` is its address, after those of the bridges that lead to it: `0000:00:1c.0/0000:03:00.0`. No driver is called `-`.
    pub fn function(&self, place: &str, class: u32, driver: &str, group: Option<u32>) -> &Self {
        let address = place.rsplit('/').next().unwrap();
        let folder = format!("sys/devices/pci0000:00/{place}");
        for (attribute, text) in [
            ("class", &*format!("{class:#08x}\n")),
            ("vendor", "0x1234\n"),
            ("device", "0x5678\n"),
            ("driver_override", "(null)\n"),
            ("boot_vga", "0\n"),
            ("reset_method", "flr bus\n"),
        ] {
            self.file(&format!("{folder}/{attribute}"), text);
        }
        self.link(&format!("sys/bus/pci/devices/{address}"), &folder);
        if driver != "-" {
            self.driver(driver);
            self.link(&format!("{folder}/driver"), &format!("sys/bus/pci/drivers/{driver}"));
            self.link(&format!("sys/bus/pci/drivers/{driver}/{address}"), &folder);
        }
        if let Some(group) = group {
            let group = format!("sys/kernel/iommu_groups/{group}");
            self.link(&format!("{group}/devices/{address}"), &folder);
            self.link(&format!("{folder}/iommu_group"), &group);
        }
        self
    }

    /// A block device below `place` in `/sys/devices`, as `pci0000:00/0000:00:1f.2/ata1/block/sda`, with its number, as `8:0`.
    pub fn block(&self, place: &str, number: &str) -> &Self {
        let name = place.rsplit('/').next().unwrap();
        let folder = format!("sys/devices/{place}");
        self.file(&format!("{folder}/dev"), number);
        fs::create_dir_all(self.path(&format!("{folder}/slaves"))).unwrap();
        self.link(&format!("sys/class/block/{name}"), &folder);
        self.link(&format!("sys/dev/block/{number}"), &folder);
        self.file(&format!("dev/{name}"), "");
        self
    }

    /// Makes one block device lie on another, as dm and md do.
    pub fn on(&self, upper: &str, lower: &str) -> &Self {
        let upper = fs::canonicalize(self.path(&format!("sys/class/block/{upper}"))).unwrap();
        symlink(self.path(&format!("sys/class/block/{lower}")), upper.join("slaves").join(lower)).unwrap();
        self
    }

    /// Mounts the block device with this number.
    pub fn mount(&self, number: &str, at: &str, kind: &str, source: &str) -> &Self {
        self.line(
            "proc/self/mountinfo",
            &format!("36 35 {number} / {at} rw,noatime shared:1 - {kind} {source} rw"),
        );
        self
    }

    /// A network interface below `place` in `/sys/devices`, as `pci0000:00/0000:00:19.0/net/eth0`.
    pub fn interface(&self, place: &str, up: bool) -> &Self {
        let name = place.rsplit('/').next().unwrap();
        self.file(&format!("sys/devices/{place}/flags"), if up { "0x1003\n" } else { "0x1002\n" });
        self.link(&format!("sys/class/net/{name}"), &format!("sys/devices/{place}"));
        self
    }

    /// Makes one interface lie on another, as VLANs and bridges do.
    pub fn over(&self, upper: &str, lower: &str) -> &Self {
        for (one, link, other) in [(upper, "lower", lower), (lower, "upper", upper)] {
            let folder = fs::canonicalize(self.path(&format!("sys/class/net/{one}"))).unwrap();
            symlink(self.path(&format!("sys/class/net/{other}")), folder.join(format!("{link}_{other}")))
                .unwrap();
        }
        self
    }

    /// The driver that has a function now.
    #[must_use]
    pub fn driver_of(&self, address: &str) -> Option<String> {
        let link = fs::read_link(self.path(&format!("sys/bus/pci/devices/{address}/driver"))).ok()?;
        Some(link.file_name()?.to_str()?.to_owned())
    }

    /// Does what the kernel does when `text` is written to this attribute; this host's drivers are those of the functions when they were made.
    ///
    /// # Errors
    /// What the kernel would answer.
    pub fn write(&self, path: &Path, text: &str) -> std::io::Result<()> {
        let address = text.trim();
        let name = path.file_name().unwrap().to_str().unwrap();
        match name {
            "driver_override" => fs::write(
                path,
                if address.is_empty() { "(null)\n".to_owned() } else { format!("{address}\n") },
            ),
            "unbind" => fs::remove_file(self.path(&format!("sys/bus/pci/devices/{address}/driver"))),
            "bind" => {
                let driver = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
                self.attach(address, driver)
            }
            "drivers_probe" => {
                let only =
                    fs::read_to_string(self.path(&format!("sys/bus/pci/devices/{address}/driver_override")))?;
                match only.trim() {
                    "(null)" => Ok(()),
                    only => self.attach(address, only),
                }
            }
            other => panic!("nobody writes to {other}"),
        }
    }

    fn attach(&self, address: &str, driver: &str) -> std::io::Result<()> {
        if self.driver_of(address).is_some() || !self.path(&format!("sys/bus/pci/drivers/{driver}")).exists()
        {
            return Err(std::io::Error::from_raw_os_error(19));
        }
        let folder = fs::canonicalize(self.path(&format!("sys/bus/pci/devices/{address}")))?;
        symlink(self.path(&format!("sys/bus/pci/drivers/{driver}")), folder.join("driver"))
    }
}
