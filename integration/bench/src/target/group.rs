//! What is measured: groups of servers, and the cases of each.

use crate::load::Pattern;
use crate::report::Case;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Options;

/// Bytes of all images of a group together.
const BYTES: usize = 256 << 20;
/// Clients in the group with overlays.
pub(super) const CLIENTS: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    Tmpfs,
    DiskCached,
    DiskDirect,
    /// On tmpfs; read by one client and by many.
    Overlays,
}

/// Servers that run at the same time, one at a time under load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) mtu: u32,
    pub(super) storage: Storage,
    pub(super) exports: usize,
}

impl Group {
    pub(super) fn name(self) -> String {
        let (storage, count) = match self.storage {
            Storage::Tmpfs => ("tmpfs", self.exports),
            Storage::DiskCached => ("disk-cached", self.exports),
            Storage::DiskDirect => ("disk-direct", self.exports),
            Storage::Overlays => ("overlays", CLIENTS),
        };
        format!("mtu{}/{storage}/{count}", self.mtu)
    }

    /// Sectors of one image, a multiple of 4 KiB.
    pub(super) fn sectors(self) -> u64 {
        sectors(self.exports)
    }

    /// Whether images lie in memory.
    pub(super) fn in_memory(self) -> bool {
        matches!(self.storage, Storage::Tmpfs | Storage::Overlays)
    }

    /// The images, in the folder.
    pub(super) fn images(self, folder: &Path) -> Result<Vec<PathBuf>> {
        (0..self.exports).map(|index| image(&folder.join(format!("{index}.img")), self.sectors())).collect()
    }
}

/// Sectors of one of so many images.
pub(super) fn sectors(images: usize) -> u64 {
    (BYTES / images / 4096 * 8) as u64
}

/// Makes an image full of data, so that no read is of a hole.
pub(super) fn image(path: &Path, sectors: u64) -> Result<PathBuf> {
    let data: Vec<u8> = (0..sectors).flat_map(|sector| sector.to_le_bytes().repeat(64)).collect();
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(&data)?;
        file.sync_all()
    };
    write().with_context(|| format!("{}", path.display()))?;
    Ok(path.to_owned())
}

pub(super) fn groups(options: &Options) -> Vec<Group> {
    let mut groups = Vec::new();
    for mtu in [1500, 9000] {
        let group = |storage, exports| Group { mtu, storage, exports };
        groups.push(group(Storage::Tmpfs, 1));
        if !options.quick {
            groups.push(group(Storage::DiskCached, 1));
        }
        if !options.quick || mtu == 9000 {
            groups.push(group(Storage::DiskDirect, 1));
            groups.push(group(Storage::Tmpfs, options.exports.into()));
        }
        if mtu == 9000 {
            groups.push(group(Storage::Overlays, 1));
        }
    }
    groups
}

/// The cases of a group, without figures yet.
pub(super) fn cases(group: Group, options: &Options) -> Vec<(Pattern, Case)> {
    let windows: &[usize] = if options.quick { &[16, 64] } else { &[1, 16, 64] };
    let mut cases = Vec::new();
    for pattern in [Pattern::Sequential, Pattern::Random] {
        for &window in windows {
            let case =
                Case { group: group.name(), pattern: pattern.name().into(), window, ..Case::default() };
            if case.name().contains(&options.only) {
                cases.push((pattern, case));
            }
        }
    }
    cases
}
