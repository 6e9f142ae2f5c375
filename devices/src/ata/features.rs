//! A disk's settings: what SET FEATURES, SET MULTIPLE MODE and their like change, and IDENTIFY DEVICE shows.

use super::{Geometry, MULTIPLE_MAX, SetFeatures, TaskFile};

/// A transfer mode, as SET FEATURES 03h names it.
///
/// Nothing here has a bus whose speed depends on it; guests choose one, and believe in it when IDENTIFY DEVICE shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransferMode {
    /// PIO mode 0 to 4.
    Pio(u8),
    /// Multiword DMA mode 0 to 2.
    Multiword(u8),
    /// Ultra DMA mode 0 to 5.
    Ultra(u8),
}

impl TransferMode {
    /// The mode that the Sector Count register names; `None` for one that the disk does not have.
    #[must_use]
    pub fn decode(count: u8) -> Option<Self> {
        Some(match count {
            // "PIO default mode", with and without IORDY.
            0x00 | 0x01 => TransferMode::Pio(0),
            0x08..=0x0c => TransferMode::Pio(count & 7),
            0x20..=0x22 => TransferMode::Multiword(count & 7),
            0x40..=0x45 => TransferMode::Ultra(count & 7),
            _ => return None,
        })
    }
}

/// What a guest can set on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The DMA mode that IDENTIFY DEVICE shows as selected; for a PIO mode, none.
    pub transfer_mode: TransferMode,
    /// Volatile write cache. Without it every write waits until its data is durable.
    pub write_cache: bool,
    /// Read look-ahead. Means nothing here; guests turn it on and look whether that worked.
    pub look_ahead: bool,
    /// Sectors in a DRQ block of READ and WRITE MULTIPLE: a power of two, or 0 when they are disabled.
    pub multiple: u8,
    /// SMART operations.
    pub smart: bool,
    /// Cylinders, heads and sectors, for guests that do not use LBAs.
    pub geometry: Geometry,
}

impl Settings {
    /// The settings after power-on of a disk with that many sectors.
    #[must_use]
    pub fn power_on(disk_sectors: u64) -> Self {
        Settings {
            transfer_mode: TransferMode::Ultra(5),
            write_cache: true,
            look_ahead: true,
            // Linux uses READ MULTIPLE only when it finds a number already set.
            multiple: MULTIPLE_MAX,
            smart: true,
            geometry: Geometry::of(disk_sectors),
        }
    }

    /// Carries out SET FEATURES; `None` for ABRT.
    pub(super) fn set_feature(&mut self, file: &TaskFile) -> Option<()> {
        match SetFeatures::decode(file.features())? {
            SetFeatures::WriteCache(on) => self.write_cache = on,
            SetFeatures::LookAhead(on) => self.look_ahead = on,
            SetFeatures::TransferMode => self.transfer_mode = TransferMode::decode(file.count())?,
        }
        Some(())
    }

    /// Carries out SET MULTIPLE MODE; `None` for ABRT.
    pub(super) fn set_multiple(&mut self, count: u8) -> Option<()> {
        let good = count == 0 || (count.is_power_of_two() && count <= MULTIPLE_MAX);
        good.then(|| self.multiple = count)
    }
}
