//! Guest memory: what is RAM in the guest's physical address space, and how devices reach it.

mod stretch;

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use kagero_devices::memory::{DmaFault, DmaMemory};
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
};

use self::stretch::Stretch;

/// The VGA window: not RAM, although RAM lies on both sides.
pub const VGA_HOLE: Range<u64> = 0xa_0000..0xc_0000;

/// Where RAM below 4 GiB ends at most; from here to 4 GiB live PCI BARs, the IOAPIC, the LAPICs and the firmware.
pub const PCI_HOLE: Range<u64> = 0xc000_0000..0x1_0000_0000;

/// The chipset's part of that: I/O APIC, local APICs, KVM's own pages, firmware. No BAR is there, wherever the guest puts it: what is
/// fixed on the board wins.
pub const CHIPSET: Range<u64> = 0xfec0_0000..PCI_HOLE.end;

/// The smallest memory in which SeaBIOS and a Linux kernel come up.
pub const MINIMUM: u64 = 32 << 20;

/// The guest's RAM.
///
/// Cheap to clone: clones share the mapping.
#[derive(Clone)]
pub struct GuestRam {
    ram: GuestMemoryMmap,
    size: u64,
    // What `ram` lies in.
    stretches: Arc<[Stretch]>,
}

impl GuestRam {
    /// Maps `size` bytes of anonymous memory, zeroed. The part of `size` that does not fit below the PCI hole goes above 4 GiB. Guest addresses and
    /// those in this process agree in where huge pages begin.
    ///
    /// # Errors
    /// When the host doesn't have that much address space or memory to promise.
    pub fn new(size: u64) -> io::Result<Self> {
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut regions = Vec::new();
        // The first two are on both sides of the VGA window, in one stretch.
        for (range, within) in ranges(size).into_iter().zip([0, 0, PCI_HOLE.end]) {
            if range.start == within {
                let end = if within == 0 { size.min(PCI_HOLE.start) } else { range.end };
                stretches.push(Stretch::new(end - within)?);
            }
            let Some(stretch) = stretches.last() else { continue };
            let region = stretch.region(range.start - within, range.end - range.start)?;
            let region = GuestRegionMmap::new(region, GuestAddress(range.start));
            regions.push(region.ok_or_else(|| io::Error::other("guest memory ends past all addresses"))?);
        }
        let ram = GuestMemoryMmap::from_regions(regions).map_err(io::Error::other)?;
        Ok(GuestRam { ram, size, stretches: stretches.into() })
    }

    /// Has the host find and clear all of this memory now, on all processors: for who needs all of it at once anyway.
    pub fn populate(&self) {
        const PART: usize = 32 << 20;
        let parts = self
            .stretches
            .iter()
            .flat_map(|stretch| (0..stretch.length()).step_by(PART).map(move |offset| (stretch, offset)));
        let parts = Mutex::new(parts);
        let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some((stretch, offset)) = next() {
                stretch.populate(offset, PART);
            }
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|threads| {
            // This thread is one of them.
            (1..processors.min(8)).for_each(|_| drop(threads.spawn(work)));
            work();
        });
    }

    /// Bytes of RAM that the guest was given; the VGA window's 128 KiB of it are not usable, as on a real machine.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// RAM below 4 GiB ends here.
    pub fn low_end(&self) -> u64 {
        self.size.min(PCI_HOLE.start)
    }

    /// Bytes of RAM from 4 GiB on.
    pub fn above_4g(&self) -> u64 {
        self.size - self.low_end()
    }

    /// RAM ends here, below or above 4 GiB.
    pub fn end(&self) -> u64 {
        if self.above_4g() > 0 { PCI_HOLE.end + self.above_4g() } else { self.low_end() }
    }

    /// The mapping, for KVM's memory slots and for rust-vmm's loaders.
    pub fn mapping(&self) -> &GuestMemoryMmap {
        &self.ram
    }

    /// Each stretch of RAM as (guest physical address, host virtual address, bytes).
    pub fn slots(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        self.ram.iter().map(|region| {
            let host = region.get_host_address(vm_memory::MemoryRegionAddress(0)).map_or(0, |p| p as u64);
            (region.start_addr().0, host, region.len())
        })
    }
}

/// The address ranges that `size` bytes of RAM occupy.
fn ranges(size: u64) -> Vec<Range<u64>> {
    let low = size.min(PCI_HOLE.start);
    let mut ranges = vec![0..VGA_HOLE.start, VGA_HOLE.end..low];
    if size > low {
        ranges.push(PCI_HOLE.end..PCI_HOLE.end + (size - low));
    }
    ranges
}

impl DmaMemory for GuestRam {
    fn read(&self, gpa: u64, out: &mut [u8]) -> Result<(), DmaFault> {
        self.ram.read_slice(out, GuestAddress(gpa)).map_err(|_| DmaFault { gpa })
    }

    fn write(&self, gpa: u64, data: &[u8]) -> Result<(), DmaFault> {
        self.ram.write_slice(data, GuestAddress(gpa)).map_err(|_| DmaFault { gpa })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_goes_around_the_holes() {
        assert_eq!(ranges(1 << 30), [0..0xa_0000, 0xc_0000..1 << 30]);
        assert_eq!(ranges(4 << 30), [0..0xa_0000, 0xc_0000..0xc000_0000, 1 << 32..0x1_4000_0000]);
    }

    #[test]
    fn huge_pages_begin_where_the_guests_do() {
        let ram = GuestRam::new(4 << 30).unwrap();
        let slots: Vec<_> = ram.slots().collect();
        assert_eq!(slots.len(), 3);
        for (gpa, host, _) in slots {
            assert_eq!(gpa % (2 << 20), host % (2 << 20));
        }
    }

    #[test]
    fn dma_outside_ram_is_a_fault() {
        let ram = GuestRam::new(MINIMUM).unwrap();
        assert_eq!(ram.write(VGA_HOLE.start - 2, &[1, 2, 3]), Err(DmaFault { gpa: VGA_HOLE.start - 2 }));
        assert_eq!(ram.read(u64::MAX, &mut [0; 2]), Err(DmaFault { gpa: u64::MAX }));
        ram.write(MINIMUM - 2, &[4, 5]).unwrap();
        let mut back = [0; 2];
        ram.read(MINIMUM - 2, &mut back).unwrap();
        assert_eq!(back, [4, 5]);
    }
}
