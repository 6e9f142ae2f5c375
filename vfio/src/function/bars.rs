//! The parts of BARs that the guest reaches without an exit.

use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;

use kagero_devices::pci::{Filter, ROM};
use rustix::param::page_size;

use super::ends::Ends;
use super::place::{pending_bytes, range_of, table_bytes};
use crate::{Mapping, Region, Slot};

/// A part of a BAR that can be mapped.
struct Area {
    /// 0 to 5, or [`ROM`].
    bar: u8,
    /// Bytes from the BAR's start.
    start: u64,
    mapping: Arc<Mapping>,
    /// Where in the guest it is mapped now.
    at: Option<(u64, Slot)>,
}

/// All mappable parts.
///
/// When a write to configuration space moves BARs or turns them off, first [`retract`](Self::retract), then let the hardware know, then
/// [`extend`](Self::extend): the kernel takes the mapped registers away from under us as soon as the hardware's Memory Space bit is
/// cleared, and whoever reaches for them then gets a fault.
pub(super) struct Bars {
    areas: Vec<Area>,
    /// Whether the guest has ever looked at the ROM.
    rom_seen: bool,
}

impl Bars {
    /// Maps all that can be into this process. What can't be is read and written with exits.
    pub(super) fn new(filter: &Filter, ends: &mut Ends) -> Self {
        let mut areas = Vec::new();
        for bar in 0..6 {
            let Some(size) = filter.bar(bar).map(|bar| bar.size()) else { continue };
            let mut ranges = ends.hardware.areas(bar);
            ranges.retain(|range| !range.is_empty() && range.end <= size);
            for hole in holes(filter, bar) {
                ranges = ranges.into_iter().flat_map(|range| without(range, &hole)).collect();
            }
            for range in ranges {
                let mapping = ends.hardware.map(bar, range.clone());
                if let Some(mapping) = ends.check("mapping its registers", mapping) {
                    areas.push(Area { bar, start: range.start, mapping: Arc::new(mapping), at: None });
                }
            }
        }
        Bars { areas, rom_seen: false }
    }

    /// Takes away from the guest what it should find elsewhere, or not at all.
    pub(super) fn retract(&mut self, filter: &Filter, ends: &mut Ends) {
        for area in &mut self.areas {
            if let Some((_, slot)) =
                area.at.take_if(|(at, _)| wanted(filter, area.bar, area.start) != Some(*at))
            {
                ends.machine.unmap(slot);
            }
        }
    }

    /// Gives the guest what it should find and doesn't. What is in the way of something else stays with exits.
    pub(super) fn extend(&mut self, filter: &Filter, ends: &mut Ends) {
        if !self.rom_seen && filter.rom_decoded().is_some() {
            self.rom_seen = true;
            self.areas.extend(rom(ends));
        }
        for area in self.areas.iter_mut().filter(|area| area.at.is_none()) {
            let Some(gpa) = wanted(filter, area.bar, area.start) else { continue };
            match ends.machine.map(gpa, Arc::clone(&area.mapping)) {
                Ok(slot) => area.at = Some((gpa, slot)),
                // A guest that sizes a BAR without turning it off, or puts two in one place: its business.
                Err(error) if is_no_place(error.kind()) => {}
                Err(error) => drop(ends.check::<()>("giving its registers to the guest", Err(error))),
            }
        }
    }
}

/// Whether the machine says that nothing can be mapped there, rather than that it can't map anything.
fn is_no_place(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::AlreadyExists | ErrorKind::AddrInUse | ErrorKind::InvalidInput)
}

/// The expansion ROM: a copy of it, as VFIO has no mapping of it. Firmware reads all of it, four bytes at a time: with an exit for each, that takes
/// seconds. It is read when the guest first turns it on, since most never do.
fn rom(ends: &mut Ends) -> Option<Area> {
    // Larger ones are none (PCI Local Bus 3.0, 6.2.5.2: at most 16 MiB).
    let size = ends.hardware.size(Region::Rom).min(16 << 20) as usize;
    if size == 0 || !size.is_multiple_of(page_size()) {
        return None;
    }
    let mut bytes = vec![0xff; size];
    let read = ends.hardware.read(Region::Rom, 0, &mut bytes);
    ends.check("reading its ROM", read)?;
    let mapping = ends.check("keeping its ROM", Mapping::copy(&bytes))?;
    Some(Area { bar: ROM, start: 0, mapping: Arc::new(mapping), at: None })
}

/// Where the guest should find what is `start` bytes into a BAR.
fn wanted(filter: &Filter, bar: u8, start: u64) -> Option<u64> {
    filter.decoded(bar)?.checked_add(start)
}

/// What of a BAR may not be mapped: the MSI-X table and the pending bits, which are ours, in whole pages.
fn holes(filter: &Filter, bar: u8) -> Vec<Range<u64>> {
    let page = page_size() as u64;
    let Some(msix) = filter.msix() else { return Vec::new() };
    let places = [(msix.table, table_bytes(msix.vectors)), (msix.pending, pending_bytes(msix.vectors))];
    let here = places.into_iter().filter(|(place, _)| place.bar == bar);
    here.map(|(place, bytes)| {
        let range = range_of(place, bytes);
        range.start / page * page..range.end.next_multiple_of(page)
    })
    .collect()
}

/// What a hole leaves of a range.
fn without(range: Range<u64>, hole: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let below = range.start..range.end.min(hole.start);
    let above = range.start.max(hole.end)..range.end;
    [below, above].into_iter().filter(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_leaves_what_is_around_it() {
        let rest = |hole: Range<u64>| without(0x1000..0x4000, &hole).collect::<Vec<_>>();
        assert_eq!(rest(0x2000..0x3000), [0x1000..0x2000, 0x3000..0x4000]);
        assert_eq!(rest(0..0x2000), std::iter::once(0x2000..0x4000).collect::<Vec<_>>());
        assert_eq!(rest(0x3000..0x9000), std::iter::once(0x1000..0x3000).collect::<Vec<_>>());
        assert_eq!(rest(0..0x9000), []);
        assert_eq!(rest(0x8000..0x9000), std::iter::once(0x1000..0x4000).collect::<Vec<_>>());
    }
}
