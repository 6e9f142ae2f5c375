//! Cylinders, heads and sectors: what guests of the BIOS age say instead of an LBA.

/// How cylinder, head and sector numbers map to LBAs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Cylinders.
    pub cylinders: u16,
    /// Heads, 1 to 16.
    pub heads: u8,
    /// Sectors a track, 1 to 255.
    pub sectors: u8,
}

impl Geometry {
    /// The geometry that a disk of this size reports by default: 16 heads, 63 sectors (ATA-5, annex C).
    #[must_use]
    pub fn of(disk_sectors: u64) -> Self {
        let cylinders = (disk_sectors / (16 * 63)).clamp(1, 16_383) as u16;
        Geometry { cylinders, heads: 16, sectors: 63 }
    }

    /// This geometry with INITIALIZE DEVICE PARAMETERS' heads and sectors a track, cylinders chosen to fit the disk.
    #[must_use]
    pub fn with_track(heads: u8, sectors: u8, disk_sectors: u64) -> Option<Self> {
        let per_cylinder = u64::from(heads) * u64::from(sectors);
        if per_cylinder == 0 || heads > 16 {
            return None;
        }
        let cylinders = (disk_sectors / per_cylinder).clamp(1, 65_535) as u16;
        Some(Geometry { cylinders, heads, sectors })
    }

    /// Sectors that this geometry reaches.
    #[must_use]
    pub fn capacity(self) -> u32 {
        u32::from(self.cylinders) * u32::from(self.heads) * u32::from(self.sectors)
    }

    /// The LBA of a cylinder, head and sector (counted from 1); `None` when there is no such head or sector.
    #[must_use]
    pub fn lba(self, cylinder: u16, head: u8, sector: u8) -> Option<u64> {
        if head >= self.heads || sector == 0 || sector > self.sectors {
            return None;
        }
        let track = u64::from(cylinder) * u64::from(self.heads) + u64::from(head);
        Some(track * u64::from(self.sectors) + u64::from(sector) - 1)
    }

    /// Cylinder, head and sector of an LBA; the cylinder wraps past 65,535.
    #[must_use]
    pub fn chs(self, lba: u64) -> (u16, u8, u8) {
        let (heads, sectors) = (u64::from(self.heads.max(1)), u64::from(self.sectors.max(1)));
        let track = lba / sectors;
        ((track / heads) as u16, (track % heads) as u8, (lba % sectors) as u8 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_there_and_back() {
        let geometry = Geometry::of(1 << 21);
        assert_eq!(geometry, Geometry { cylinders: 2_080, heads: 16, sectors: 63 });
        for lba in [0, 62, 63, 1_007, 1_008, 2_000_000] {
            let (cylinder, head, sector) = geometry.chs(lba);
            assert_eq!(geometry.lba(cylinder, head, sector), Some(lba));
        }
        assert_eq!(geometry.lba(0, 0, 0), None, "sectors count from 1");
        assert_eq!(geometry.lba(0, 16, 1), None);
        assert_eq!(geometry.lba(0, 0, 64), None);
    }

    #[test]
    fn sizes_stop_where_the_registers_do() {
        assert_eq!(Geometry::of(u64::MAX).cylinders, 16_383);
        assert_eq!(Geometry::of(1).cylinders, 1);
        assert_eq!(Geometry::with_track(1, 1, u64::MAX).map(|g| g.cylinders), Some(65_535));
        assert_eq!(Geometry::with_track(16, 0, 100), None);
    }
}
