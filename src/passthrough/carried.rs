//! What hangs on a function that the host, or this run, still needs: file systems, swap, disks, network interfaces.
//!
//! The kernel says where a device is in the path of its folder, which names every PCI function on the way: bridges, controllers of
//! controllers, and the one that carries it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::Address;
use super::host::{Host, names, number, target, text};

/// Something that would be gone with the function.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Carried {
    /// A file system that the host has mounted.
    FileSystem {
        /// Where.
        mount: String,
        /// The block device.
        device: String,
    },
    /// The host's swap.
    Swap {
        /// The block device.
        device: String,
    },
    /// A disk of this run.
    Disk {
        /// The block device.
        device: String,
    },
    /// A block device that somebody has for himself alone: a pool of ZFS, another virtual machine.
    Held {
        /// The block device.
        device: String,
    },
    /// A network interface.
    Interface {
        /// Its name.
        name: String,
        /// Whether it is up.
        up: bool,
        /// Whether this run's disks are reached through it.
        aoe: bool,
    },
}

impl Carried {
    /// Whether the function can't go because of it. The host's other interfaces are whoever gives them away's own business.
    pub(super) fn stays(&self) -> bool {
        !matches!(self, Carried::Interface { aoe: false, .. })
    }

    /// Whether the function can't be taken along, for another's sake and unasked.
    pub(super) fn in_use(&self) -> bool {
        self.stays() || matches!(self, Carried::Interface { up: true, .. })
    }

    pub(super) fn mend(&self) -> &'static str {
        match self {
            Carried::FileSystem { mount, .. } if mount == "/" => {
                "the host runs from it; it can't be the guest's"
            }
            Carried::FileSystem { .. } => "unmount it first",
            Carried::Swap { .. } => "`swapoff` it first",
            Carried::Disk { .. } => "give the guest the disk, or its controller, not both",
            Carried::Held { .. } => "end what uses it first",
            Carried::Interface { aoe: true, .. } => {
                "reach the disks through another interface, or leave it to the host"
            }
            Carried::Interface { .. } => "take the interface down first",
        }
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Carried::FileSystem { mount, device } => write!(f, "carries {mount} ({device})"),
            Carried::Swap { device } => write!(f, "carries swap ({device})"),
            Carried::Disk { device } => write!(f, "carries a disk of this run ({device})"),
            Carried::Held { device } => write!(f, "carries {device}, which is in use"),
            Carried::Interface { name, aoe: true, .. } => write!(f, "carries AoE ({name})"),
            Carried::Interface { name, up: true, .. } => write!(f, "carries {name}, which is up"),
            Carried::Interface { name, .. } => write!(f, "carries {name}"),
        }
    }
}

/// What the run itself needs of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The interfaces through which its disks are reached, `tap:` before the name of a tap.
    pub interfaces: Vec<String>,
    /// The block devices that are its disks, by major and minor number.
    pub disks: Vec<(u32, u32)>,
}

/// All that is carried, by function; what matters most first.
pub(super) fn carried(host: &Host, needs: &Needs) -> BTreeMap<Address, Vec<Carried>> {
    let mut all: BTreeMap<Address, BTreeSet<Carried>> = BTreeMap::new();
    let mut add = |functions: &BTreeSet<Address>, what: &Carried| {
        for function in functions {
            all.entry(*function).or_default().insert(what.clone());
        }
    };
    for (mount, device) in mounts(host) {
        add(&below(host, &device), &Carried::FileSystem { mount, device });
    }
    for device in swaps(host) {
        add(&below(host, &device), &Carried::Swap { device });
    }
    for (major, minor) in &needs.disks {
        if let Some(device) = target(&host.path(format!("sys/dev/block/{major}:{minor}"))) {
            add(&below(host, &device), &Carried::Disk { device });
        }
    }
    for device in names(&host.path("sys/class/block")) {
        let functions = below(host, &device);
        // Asking means opening it, which even for a moment is not done without need.
        if !functions.is_empty() && is_held(host, &device) {
            add(&functions, &Carried::Held { device });
        }
    }
    let aoe = aoe_interfaces(host, &needs.interfaces);
    for name in names(&host.path("sys/class/net")) {
        let folder = host.path("sys/class/net").join(&name);
        let up = number(&folder.join("flags")).is_some_and(|flags| flags & 1 != 0);
        let functions = on_the_way(&folder);
        add(&functions, &Carried::Interface { up, aoe: aoe.contains(&name), name });
    }
    all.into_iter().map(|(function, set)| (function, most_telling(set))).collect()
}

/// Without what only repeats that something is in use; AoE before other interfaces.
fn most_telling(set: BTreeSet<Carried>) -> Vec<Carried> {
    let known = set.iter().any(|what| what.stays() && !matches!(what, Carried::Held { .. }));
    let mut list: Vec<_> =
        set.into_iter().filter(|what| !(known && matches!(what, Carried::Held { .. }))).collect();
    list.sort_by_key(|what| (!what.stays(), !what.in_use()));
    list
}

/// The PCI functions in the real path of a device.
fn on_the_way(folder: &Path) -> BTreeSet<Address> {
    let Ok(real) = fs::canonicalize(folder) else { return BTreeSet::new() };
    let parts = real.iter().filter_map(|part| part.to_str());
    parts
        .filter_map(|part| part.parse::<Address>().ok().filter(|address| address.to_string() == part))
        .collect()
}

/// The PCI functions below a block device, through all that is stacked on them.
fn below(host: &Host, device: &str) -> BTreeSet<Address> {
    let mut functions = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut open = vec![device.to_owned()];
    while let Some(device) = open.pop() {
        if !seen.insert(device.clone()) {
            continue;
        }
        let folder = host.path("sys/class/block").join(&device);
        functions.extend(on_the_way(&folder));
        functions.extend(nvme_paths(&folder));
        // A partition of something stacked (md0p1) has its whole's parts.
        let whole = fs::canonicalize(&folder).ok().and_then(|real| Some(real.parent()?.join("slaves")));
        let parts = [Some(folder.join("slaves")), whole].into_iter().flatten();
        open.extend(parts.flat_map(|slaves| names(&slaves)));
    }
    functions
}

/// The functions of a disk that the kernel's NVMe multipath shows as a virtual one, as it does for drives with more than one port.
fn nvme_paths(folder: &Path) -> BTreeSet<Address> {
    let Ok(real) = fs::canonicalize(folder) else { return BTreeSet::new() };
    let subsystem = |folder: &&Path| {
        folder.parent().and_then(Path::file_name).is_some_and(|name| name == "nvme-subsystem")
    };
    let Some(subsystem) = real.ancestors().find(subsystem) else { return BTreeSet::new() };
    names(subsystem).iter().flat_map(|name| on_the_way(&subsystem.join(name))).collect()
}

/// What is mounted from block devices: where, and the device's name.
fn mounts(host: &Host) -> Vec<(String, String)> {
    let text = text(&host.path("proc/self/mountinfo")).unwrap_or_default();
    text.lines().filter_map(|line| mount(host, line)).flatten().collect()
}

/// One line of mountinfo: `36 35 98:0 / /mnt rw,noatime master:1 - ext4 /dev/sda1 rw` (proc(5)).
fn mount(host: &Host, line: &str) -> Option<Vec<(String, String)>> {
    let (ours, theirs) = line.split_once(" - ")?;
    let mut fields = ours.split(' ').skip(2);
    let (number, place) = (fields.next()?, plain(fields.nth(1)?));
    let mut theirs = theirs.split(' ');
    let (kind, source) = (theirs.next()?, plain(theirs.next()?));
    // btrfs and others have numbers that no device has; then the source is all there is.
    let device = target(&host.path("sys/dev/block").join(number)).or_else(|| named(host, &source))?;
    let mut devices = vec![device];
    if kind == "btrfs" {
        let systems = host.path("sys/fs/btrfs");
        let systems = names(&systems).into_iter().map(|id| names(&systems.join(id).join("devices")));
        devices.extend(
            systems.into_iter().filter(|list| list.contains(&devices[0])).flatten().collect::<Vec<_>>(),
        );
        devices.sort();
        devices.dedup();
    }
    Some(devices.into_iter().map(|device| (place.clone(), device)).collect())
}

/// The kernel writes space, tab, line break and backslash as `\040` and so on.
fn plain(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (coded, plain)| text.replace(coded, plain))
}

/// The kernel's name of a block device below `/dev`, through links such as those in `/dev/mapper`.
fn named(host: &Host, path: &str) -> Option<String> {
    let node = host.path(path.strip_prefix('/')?);
    let node = fs::canonicalize(&node).unwrap_or(node);
    let dev = host.path("dev");
    let dev = fs::canonicalize(&dev).unwrap_or(dev);
    let name = node.strip_prefix(dev).ok()?.to_str()?.replace('/', "!");
    host.path("sys/class/block").join(&name).exists().then_some(name)
}

fn swaps(host: &Host) -> Vec<String> {
    let text = text(&host.path("proc/swaps")).unwrap_or_default();
    // A file's file system is mounted, and so seen already.
    text.lines().skip(1).filter_map(|line| named(host, &plain(line.split_whitespace().next()?))).collect()
}

/// Whether somebody has opened a block device for himself alone, as file systems and volume managers do.
fn is_held(host: &Host, device: &str) -> bool {
    let node: PathBuf = host.path("dev").join(device.replace('!', "/"));
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::NONBLOCK | OFlags::CLOEXEC;
    matches!(rustix::fs::open(node, flags, Mode::empty()), Err(Errno::BUSY))
}

/// The interfaces that frames of these take on their way out: below VLANs, bonds and bridges, and beside a tap in its bridge.
fn aoe_interfaces(host: &Host, interfaces: &[String]) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let stacked = |name: &str, prefix: &str| {
        let links = names(&host.path("sys/class/net").join(name));
        links.into_iter().filter_map(|link| link.strip_prefix(prefix).map(str::to_owned)).collect::<Vec<_>>()
    };
    let mut open: Vec<String> = Vec::new();
    for name in interfaces {
        match name.strip_prefix("tap:") {
            Some(tap) => open.extend(stacked(tap, "upper_")),
            None => open.push(name.clone()),
        }
    }
    while let Some(name) = open.pop() {
        if seen.insert(name.clone()) {
            open.extend(stacked(&name, "lower_"));
        }
    }
    seen
}
