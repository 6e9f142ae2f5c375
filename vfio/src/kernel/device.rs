//! A function that vfio-pci holds.

use std::array;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use kagero_devices::pci::{Bar, register};
use rustix::io::{pread, pwrite};
use rustix::param::page_size;
use vfio_bindings::bindings::vfio;

use super::region::RegionInfo;
use super::{Iommu, reset, uapi};
use crate::{Error, Hardware, Interrupt, Mapping, Region, Rung};

/// BARs, ROM and configuration space, by VFIO's numbers.
const REGIONS: usize = vfio::VFIO_PCI_CONFIG_REGION_INDEX as usize + 1;

/// A function of this host, held by VFIO.
#[derive(Debug)]
pub struct KernelDevice {
    name: String,
    pub(super) file: Arc<OwnedFd>,
    regions: [RegionInfo; REGIONS],
    bars: [Option<Bar>; 6],
    vectors: [u32; 5],
    grows: bool,
    has_reset: bool,
    pub(super) iommu: Arc<Iommu>,
}

impl KernelDevice {
    pub(super) fn new(name: &str, file: Arc<OwnedFd>, iommu: Arc<Iommu>) -> Result<Self, Error> {
        let kernel = |doing| move |source| Error::Kernel { device: name.to_owned(), doing, source };
        let info = uapi::device_info(&file).map_err(kernel("asking VFIO what it is"))?;
        if info.flags & vfio::VFIO_DEVICE_FLAGS_PCI == 0 {
            return Err(Error::NoDevice { device: name.to_owned() });
        }
        // A region that the kernel says nothing about is none.
        let regions = array::from_fn(|index| {
            uapi::region_info(&file, index as u32)
                .map_or_else(|_| RegionInfo::default(), |words| RegionInfo::parse(&words))
        });
        // So it is with interrupts: only PCI Express functions have the error interrupt.
        let irqs = KINDS.map(|kind| uapi::irq_info(&file, index(kind)).unwrap_or_default());
        let vectors =
            irqs.map(|irq| if irq.flags & vfio::VFIO_IRQ_INFO_EVENTFD == 0 { 0 } else { irq.count });
        let [_, _, msix, _, _] = irqs;
        let mut device = KernelDevice {
            name: name.to_owned(),
            file,
            regions,
            bars: [None; 6],
            vectors,
            grows: msix.flags & vfio::VFIO_IRQ_INFO_NORESIZE == 0,
            has_reset: info.flags & vfio::VFIO_DEVICE_FLAGS_RESET != 0,
            iommu,
        };
        for bar in 0..6 {
            device.bars[usize::from(bar)] = device.ask_bar(bar).map_err(kernel("reading its BARs"))?;
        }
        Ok(device)
    }

    /// The kernel tells the size; which kind of BAR it is says its register.
    fn ask_bar(&self, index: u8) -> io::Result<Option<Bar>> {
        let size = self.size(Region::Bar(index));
        if !size.is_power_of_two() {
            return Ok(None);
        }
        let mut low = [0; 4];
        self.read(Region::Config, u64::from(register::BAR0 + 4 * index), &mut low)?;
        Ok(bar_of(u32::from_le_bytes(low), size, index))
    }

    fn region(&self, region: Region) -> Option<&RegionInfo> {
        let index = match region {
            Region::Bar(bar @ 0..=5) => u32::from(bar),
            Region::Bar(_) => return None,
            Region::Rom => vfio::VFIO_PCI_ROM_REGION_INDEX,
            Region::Config => vfio::VFIO_PCI_CONFIG_REGION_INDEX,
        };
        self.regions.get(index as usize)
    }

    /// Where in the file these bytes are.
    fn place(&self, region: Region, offset: u64, length: usize) -> io::Result<u64> {
        let end = offset.checked_add(length as u64);
        let found = self.region(region).filter(|found| end.is_some_and(|end| end <= found.size));
        found.map(|found| found.offset + offset).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

/// In the order of VFIO's numbers.
const KINDS: [Interrupt; 5] =
    [Interrupt::Intx, Interrupt::Msi, Interrupt::MsiX, Interrupt::Error, Interrupt::Request];

fn index(kind: Interrupt) -> u32 {
    match kind {
        Interrupt::Intx => vfio::VFIO_PCI_INTX_IRQ_INDEX,
        Interrupt::Msi => vfio::VFIO_PCI_MSI_IRQ_INDEX,
        Interrupt::MsiX => vfio::VFIO_PCI_MSIX_IRQ_INDEX,
        Interrupt::Error => vfio::VFIO_PCI_ERR_IRQ_INDEX,
        Interrupt::Request => vfio::VFIO_PCI_REQ_IRQ_INDEX,
    }
}

/// What BAR `index` is, by the low half of its register and its size.
fn bar_of(low: u32, size: u64, index: u8) -> Option<Bar> {
    let prefetchable = low & 1 << 3 != 0;
    match (low & 1, low >> 1 & 3) {
        (1, _) if size >= 4 => Some(Bar::Io { size: u32::try_from(size).ok()? }),
        (0, 2) if size >= 16 && index < 5 => Some(Bar::Memory64 { size, prefetchable }),
        (0, 0 | 1 | 3) if size >= 16 => Some(Bar::Memory32 { size: u32::try_from(size).ok()?, prefetchable }),
        _ => None,
    }
}

impl Hardware for KernelDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self, region: Region) -> u64 {
        self.region(region).map_or(0, |found| found.size)
    }

    fn bar(&self, index: u8) -> Option<Bar> {
        *self.bars.get(usize::from(index))?
    }

    fn read(&self, region: Region, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0xff);
        let place = self.place(region, offset, out.len())?;
        let outcome = match pread(&self.file, &mut *out, place) {
            Ok(count) if count == out.len() => return Ok(()),
            Ok(_) => io::ErrorKind::UnexpectedEof.into(),
            Err(error) => error.into(),
        };
        out.fill(0xff);
        Err(outcome)
    }

    fn write(&self, region: Region, offset: u64, data: &[u8]) -> io::Result<()> {
        let place = self.place(region, offset, data.len())?;
        match pwrite(&self.file, data, place)? {
            count if count == data.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    fn areas(&self, bar: u8) -> Vec<Range<u64>> {
        let page = page_size() as u64;
        let areas = self.region(Region::Bar(bar)).map_or(&[][..], |found| &found.areas);
        let whole = areas.iter().map(|area| area.start.next_multiple_of(page)..area.end / page * page);
        whole.filter(|area| !area.is_empty()).collect()
    }

    fn map(&self, bar: u8, area: Range<u64>) -> io::Result<Mapping> {
        let length = area.end.checked_sub(area.start).ok_or(io::ErrorKind::InvalidInput)?;
        let place = self.place(Region::Bar(bar), area.start, length as usize)?;
        Mapping::new(&self.file, place, length)
    }

    fn vectors(&self, kind: Interrupt) -> u32 {
        self.vectors[index(kind) as usize]
    }

    fn grows(&self) -> bool {
        self.grows
    }

    fn ring(&self, kind: Interrupt, first: u32, events: &[Option<BorrowedFd<'_>>]) -> io::Result<Rung> {
        let flags = vfio::VFIO_IRQ_SET_DATA_EVENTFD | vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
        let fds: Vec<_> = events.iter().map(|event| event.map_or(-1, |event| event.as_raw_fd())).collect();
        match uapi::set_irqs(&self.file, flags, index(kind), (first, fds.len() as u32), &fds)? {
            0 => Ok(Rung::All),
            count => Ok(Rung::AtMost(count)),
        }
    }

    fn silence(&self, kind: Interrupt) -> io::Result<()> {
        let flags = vfio::VFIO_IRQ_SET_DATA_NONE | vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
        uapi::set_irqs(&self.file, flags, index(kind), (0, 0), &[]).map(drop)
    }

    fn mask_line(&self, masked: bool) -> io::Result<()> {
        let action = if masked { vfio::VFIO_IRQ_SET_ACTION_MASK } else { vfio::VFIO_IRQ_SET_ACTION_UNMASK };
        let flags = vfio::VFIO_IRQ_SET_DATA_NONE | action;
        uapi::set_irqs(&self.file, flags, index(Interrupt::Intx), (0, 1), &[]).map(drop)
    }

    fn unmask_line_on(&self, event: BorrowedFd<'_>) -> io::Result<()> {
        let flags = vfio::VFIO_IRQ_SET_DATA_EVENTFD | vfio::VFIO_IRQ_SET_ACTION_UNMASK;
        uapi::set_irqs(&self.file, flags, index(Interrupt::Intx), (0, 1), &[event.as_raw_fd()]).map(drop)
    }

    fn reset(&self) -> io::Result<()> {
        if self.has_reset { uapi::reset(&self.file) } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    fn reset_bus(&self) -> io::Result<()> {
        reset::bus(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_what_its_register_says() {
        assert_eq!(bar_of(0xe001, 0x20, 2), Some(Bar::Io { size: 0x20 }));
        assert_eq!(bar_of(0xfebc_0000, 0x4000, 0), Some(Bar::Memory32 { size: 0x4000, prefetchable: false }));
        let large = Bar::Memory64 { size: 1 << 34, prefetchable: true };
        assert_eq!(bar_of(0xc, 1 << 34, 4), Some(large));
        assert_eq!(bar_of(0xc, 1 << 34, 5), None);
        assert_eq!(bar_of(0x0, 1 << 34, 5), None);
    }

    #[test]
    fn kinds_are_in_the_kernels_order() {
        assert_eq!(KINDS.map(index), [0, 1, 2, 3, 4]);
    }
}
