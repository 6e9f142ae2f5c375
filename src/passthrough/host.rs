//! Where the kernel tells of the host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Address;

/// The host's `/sys`, `/proc`, `/dev` and `/run`, or a folder with made-up ones.
///
/// What can't be read counts as not there: files come and go with their devices.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// This one.
    #[must_use]
    pub fn here() -> Self {
        Self::at("/")
    }

    /// One whose files are below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A file or folder by its path without the first slash.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// A function's own folder.
    pub(super) fn function(&self, address: Address) -> PathBuf {
        self.path(format!("sys/bus/pci/devices/{address}"))
    }

    /// The driver that has a function.
    pub(super) fn driver(&self, address: Address) -> Option<String> {
        target(&self.function(address).join("driver"))
    }

    /// Its IOMMU group.
    pub(super) fn group(&self, address: Address) -> Option<u32> {
        let link = self.function(address).join("iommu_group");
        // Made up for functions without an IOMMU, where the kernel was told to (enable_unsafe_noiommu_mode).
        let made_up = text(&link.join("name")).is_some_and(|name| name.starts_with("vfio-noiommu"));
        if made_up { None } else { target(&link)?.parse().ok() }
    }

    /// The driver that alone may have it, when somebody has said so.
    pub(super) fn driver_override(&self, address: Address) -> Option<String> {
        text(&self.function(address).join("driver_override"))
            .filter(|name| name != "(null)" && !name.is_empty())
    }

    /// Where the VFIO character device of a function is, on kernels that have such.
    pub(super) fn character_device(&self, address: Address) -> Option<PathBuf> {
        let name = names(&self.function(address).join("vfio-dev")).into_iter().next()?;
        Some(self.path("dev/vfio/devices").join(name))
    }

    /// Where journals are kept: it outlives processes, and not the machine's next start, as do drivers' bindings. Not in `/run/kagero`: that
    /// is the server's, and systemd removes it when the server ends.
    pub(super) fn journals(&self) -> PathBuf {
        self.path("run/kagero-devices")
    }
}

/// A file's text, without the line's end.
pub(super) fn text(path: &Path) -> Option<String> {
    Some(String::from_utf8_lossy(&fs::read(path).ok()?).trim().to_owned())
}

/// A number as sysfs writes it, in base 16 after `0x`, else in base 10.
pub(super) fn number(path: &Path) -> Option<u32> {
    let text = text(path)?;
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The last part of where a link leads.
pub(super) fn target(path: &Path) -> Option<String> {
    Some(fs::read_link(path).ok()?.file_name()?.to_string_lossy().into_owned())
}

/// What is in a folder, in order.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Who changes sysfs: the kernel, or in tests something that acts as if.
pub(super) trait Kernel: Send + Sync {
    /// Writes to an attribute, in one call.
    fn write(&self, path: &Path, text: &str) -> io::Result<()>;
}

/// The real one.
pub(super) struct Sysfs;

impl Kernel for Sysfs {
    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        use io::Write as _;
        fs::OpenOptions::new().write(true).truncate(true).open(path)?.write_all(text.as_bytes())
    }
}
