//! A guest and a function, with the filter between.

use kagero_devices::pci::filter::Outcome;
use kagero_devices::pci::{Filter, Found};

use crate::dumps::Dump;

pub(crate) struct Guest {
    pub(crate) filter: Filter,
    /// The function's registers. It keeps whatever reaches it.
    pub(crate) hardware: Vec<u8>,
}

impl Guest {
    pub(crate) fn new(dump: &Dump) -> Self {
        Self::with(dump, |found| found)
    }

    pub(crate) fn with<'a>(dump: &'a Dump, change: impl FnOnce(Found<'a>) -> Found<'a>) -> Self {
        let mut hardware = dump.config.clone();
        hardware.resize(hardware.len().max(64), 0);
        Guest { filter: Filter::new(&change(dump.found())), hardware }
    }

    pub(crate) fn bytes(&self, offset: u16, width: usize) -> Vec<u8> {
        let mut data = vec![0xff; width];
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = self.hardware.get(usize::from(offset) + i).copied().unwrap_or(0xff);
        }
        self.filter.read(offset, &mut data);
        data
    }

    pub(crate) fn byte(&self, offset: u16) -> u8 {
        self.bytes(offset, 1)[0]
    }

    pub(crate) fn word(&self, offset: u16) -> u16 {
        u16::from_le_bytes(self.bytes(offset, 2).try_into().unwrap())
    }

    pub(crate) fn dword(&self, offset: u16) -> u32 {
        u32::from_le_bytes(self.bytes(offset, 4).try_into().unwrap())
    }

    pub(crate) fn write(&mut self, offset: u16, data: &[u8]) -> Outcome {
        let outcome = self.filter.write(offset, data);
        self.carry_out(&outcome);
        outcome
    }

    pub(crate) fn carry_out(&mut self, outcome: &Outcome) {
        for forward in &outcome.forwards {
            let (offset, data) = (usize::from(forward.offset), forward.data());
            assert!(matches!(data.len(), 1 | 2 | 4) && offset % data.len() == 0, "{forward:?}");
            self.hardware[offset..offset + data.len()].copy_from_slice(data);
        }
    }

    pub(crate) fn write_word(&mut self, offset: u16, value: u16) -> Outcome {
        self.write(offset, &value.to_le_bytes())
    }

    pub(crate) fn write_dword(&mut self, offset: u16, value: u32) -> Outcome {
        self.write(offset, &value.to_le_bytes())
    }

    /// What Linux finds of a BAR: it writes ones, reads back, and restores. Low dword first.
    pub(crate) fn size(&mut self, offset: u16) -> u32 {
        let before = self.dword(offset);
        let _ = self.write_dword(offset, !0);
        let stuck = self.dword(offset);
        let _ = self.write_dword(offset, before);
        assert_eq!(self.dword(offset), before, "restored");
        stuck
    }

    /// Offsets and IDs of the standard capabilities, found as a driver does.
    pub(crate) fn capabilities(&self) -> Vec<(u16, u8)> {
        let mut list = Vec::new();
        let mut at = if self.word(6) & 0x10 == 0 { 0 } else { self.byte(0x34) & !3 };
        while at >= 0x40 {
            assert!(list.len() < 48, "{list:?}");
            list.push((at.into(), self.byte(at.into())));
            at = self.byte(u16::from(at) + 1) & !3;
        }
        list
    }

    /// Offsets and IDs of the extended ones.
    pub(crate) fn extended(&self) -> Vec<(u16, u16)> {
        let mut list = Vec::new();
        let mut at = 0x100;
        while at >= 0x100 {
            assert!(list.len() < 960, "{list:?}");
            let header = self.dword(at);
            if header == 0 || header == !0 {
                break;
            }
            list.push((at, header as u16));
            at = (header >> 20) as u16 & !3;
        }
        list
    }
}
