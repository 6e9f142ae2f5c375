//! Where a guest's access to a BAR or the ROM goes.

use std::ops::Range;

use kagero_devices::pci::filter;

use super::Function;
use crate::Region;

/// Where an access goes, with the offset there.
pub(super) enum Place {
    /// To the hardware, as it is.
    Hardware,
    /// To the MSI-X table.
    Table(u64),
    /// To the pending bits.
    Pending(u64),
    /// To nobody.
    Nowhere,
}

impl Function {
    pub(super) fn place(&self, region: Region, offset: u64, length: usize) -> Place {
        let Some(end) = offset.checked_add(length as u64) else { return Place::Nowhere };
        let msix = self.filter.msix().filter(|_| region != Region::Config);
        if let Some(msix) = msix {
            let table = (msix.table, table_bytes(msix.vectors));
            let pending = (msix.pending, pending_bytes(msix.vectors));
            let ours = [(table, Place::Table as fn(u64) -> Place), (pending, Place::Pending)];
            for ((place, bytes), at) in
                ours.into_iter().filter(|((place, _), _)| Region::Bar(place.bar) == region)
            {
                let range = range_of(place, bytes);
                if range.start <= offset && end <= range.end {
                    return at(offset - range.start);
                }
                // An access across the border would reach the real table.
                if offset < range.end && range.start < end {
                    return Place::Nowhere;
                }
            }
        }
        let known = region != Region::Config && end <= self.ends.hardware.size(region);
        if known { Place::Hardware } else { Place::Nowhere }
    }
}

/// Bytes of a table.
pub(super) fn table_bytes(vectors: u16) -> u64 {
    u64::from(vectors) * 16
}

/// Bytes of the pending bits.
pub(super) fn pending_bytes(vectors: u16) -> u64 {
    u64::from(vectors).div_ceil(64) * 8
}

/// Where something is in its BAR.
pub(super) fn range_of(place: filter::Place, bytes: u64) -> Range<u64> {
    u64::from(place.offset)..u64::from(place.offset) + bytes
}
