//! The Physical Region Descriptor table: where in guest memory a DMA command's payload lies (Programming Interface for Bus Master IDE
//! Controller 1.0, 1.2).

use alloc::vec::Vec;

use crate::memory::{DmaFault, DmaMemory};

/// Entries in a table, which must not cross a 64 KiB boundary.
const ENTRIES: u32 = 65_536 / 8;

/// A snapshot of a table, as far as one command needs it.
///
/// The guest may change its table while the command is under way; what counts is what it said at the start.
#[derive(Clone, Debug, Default)]
pub(super) struct PrdTable {
    regions: Vec<Region>,
    covered: u32,
    longer: bool,
}

/// A part of the payload that is contiguous in guest memory.
#[derive(Clone, Copy, Debug)]
struct Region {
    /// First byte in the payload.
    start: u32,
    len: u32,
    gpa: u64,
}

impl PrdTable {
    /// Copies the table at `table` as far as `bytes` of payload go.
    ///
    /// # Errors
    /// [`DmaFault`] when an entry that is needed lies outside guest memory.
    pub(super) fn snapshot(&mut self, mem: &impl DmaMemory, table: u32, bytes: u32) -> Result<(), DmaFault> {
        self.clear();
        for entry in 0..ENTRIES {
            let mut raw = [0; 8];
            mem.read(table.wrapping_add(8 * entry).into(), &mut raw)?;
            let [b0, b1, b2, b3, c0, c1, _, flags] = raw;
            // Bit 0 of address and count is not there. A count of zero is 64 KiB.
            let gpa = u64::from(u32::from_le_bytes([b0, b1, b2, b3]) & !1);
            let len = match u32::from(u16::from_le_bytes([c0, c1]) & !1) {
                0 => 65_536,
                count => count,
            };
            let used = len.min(bytes - self.covered);
            self.regions.push(Region { start: self.covered, len: used, gpa });
            self.covered += used;
            let last = flags & 0x80 != 0;
            if self.covered == bytes {
                self.longer = used < len || !last;
                return Ok(());
            }
            if last {
                break;
            }
        }
        Ok(())
    }

    /// Forgets everything but the allocation.
    pub(super) fn clear(&mut self) {
        let Self { regions, covered, longer } = self;
        regions.clear();
        *covered = 0;
        *longer = false;
    }

    /// How many bytes of the payload the table has room for.
    pub(super) fn covered(&self) -> u32 {
        self.covered
    }

    /// Whether the table has room for more than the payload.
    pub(super) fn longer(&self) -> bool {
        self.longer
    }

    /// Writes `data` to where the payload's bytes from `at` on lie. What the table has no room for goes nowhere.
    ///
    /// # Errors
    /// [`DmaFault`] when a region lies outside guest memory.
    pub(super) fn scatter(&self, mem: &impl DmaMemory, at: u32, mut data: &[u8]) -> Result<(), DmaFault> {
        for (gpa, room) in self.pieces(at) {
            let (piece, rest) = data.split_at(room.min(data.len()));
            mem.write(gpa, piece)?;
            data = rest;
            if data.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Fills `out` with the payload's bytes from `at` on.
    ///
    /// # Errors
    /// [`DmaFault`] when a region lies outside guest memory, or the table does not reach so far.
    pub(super) fn gather(&self, mem: &impl DmaMemory, at: u32, mut out: &mut [u8]) -> Result<(), DmaFault> {
        for (gpa, room) in self.pieces(at) {
            let (piece, rest) = out.split_at_mut(room.min(out.len()));
            mem.read(gpa, piece)?;
            out = rest;
            if out.is_empty() {
                return Ok(());
            }
        }
        if out.is_empty() { Ok(()) } else { Err(DmaFault { gpa: 0 }) }
    }

    /// Address and length of what is contiguous, from byte `at` of the payload on.
    fn pieces(&self, at: u32) -> impl Iterator<Item = (u64, usize)> {
        let first = self.regions.partition_point(|region| region.start + region.len <= at);
        self.regions.iter().skip(first).map(move |region| {
            let skip = at.saturating_sub(region.start);
            (region.gpa + u64::from(skip), (region.len - skip) as usize)
        })
    }
}
