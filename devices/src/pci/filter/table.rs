//! Whose each bit of the configuration space is, and what the guest finds in those that are ours.

use alloc::vec;
use alloc::vec::Vec;

use super::outcome::Forward;

/// One byte of configuration space.
#[derive(Clone, Copy, Debug, Default)]
struct Byte {
    /// The bits that are ours. The others are the hardware's.
    mask: u8,
    /// What the guest finds in our bits.
    value: u8,
    /// Those of our bits that the guest may change.
    writable: u8,
    /// What `value` is after a reset.
    at_reset: u8,
}

/// All bytes. At first they are the hardware's.
#[derive(Clone, Debug)]
pub(super) struct Table(Vec<Byte>);

impl Table {
    /// So many bytes.
    pub(super) fn new(length: usize) -> Self {
        Table(vec![Byte::default(); length])
    }

    /// The bits of `mask` are ours from now on, with this value, and the guest can't change them. What lies past the end is left out.
    pub(super) fn hold_bits(&mut self, offset: u16, mask: &[u8], value: &[u8]) {
        for (byte, (&mask, &value)) in self.from(offset).zip(mask.iter().zip(value)) {
            let value = (byte.value & !mask) | (value & mask);
            *byte = Byte { mask: byte.mask | mask, value, writable: byte.writable & !mask, at_reset: value };
        }
    }

    /// These bytes are ours from now on, and the guest can't change them.
    pub(super) fn hold(&mut self, offset: u16, value: &[u8]) {
        for (i, &value) in (0..).zip(value) {
            self.hold_bits(offset.saturating_add(i), &[0xff], &[value]);
        }
    }

    /// These bytes are ours from now on, and zero.
    pub(super) fn hide(&mut self, offset: u16, length: u16) {
        for i in 0..length {
            self.hold(offset.saturating_add(i), &[0]);
        }
    }

    /// The guest may change these of our bits.
    pub(super) fn allow(&mut self, offset: u16, writable: &[u8]) {
        for (byte, &writable) in self.from(offset).zip(writable) {
            byte.writable |= writable & byte.mask;
        }
    }

    /// Changes our bits, whatever a guest may write there.
    pub(super) fn set(&mut self, offset: u16, value: &[u8]) {
        for (byte, &value) in self.from(offset).zip(value) {
            byte.value = (byte.value & !byte.mask) | (value & byte.mask);
        }
    }

    /// Our bits of the 8, 16, 32 or 64 from `offset` on; the hardware's are zero, and so is what lies past the end.
    pub(super) fn bits(&self, offset: u16, bytes: usize) -> u64 {
        let held = self.0.iter().skip(offset.into()).take(bytes.min(8));
        held.rev().fold(0, |bits, byte| bits << 8 | u64::from(byte.value))
    }

    pub(super) fn word(&self, offset: u16) -> u16 {
        self.bits(offset, 2) as u16
    }

    pub(super) fn dword(&self, offset: u16) -> u32 {
        self.bits(offset, 4) as u32
    }

    /// Makes what the hardware says what the guest reads. Past the end there are ones.
    pub(super) fn read(&self, offset: u16, data: &mut [u8]) {
        for (i, data) in data.iter_mut().enumerate() {
            *data = match self.0.get(usize::from(offset) + i) {
                Some(Byte { mask, value, .. }) => (*data & !mask) | (value & mask),
                None => 0xff,
            };
        }
    }

    /// A guest's write to our bits.
    pub(super) fn write(&mut self, offset: u16, data: &[u8]) {
        for (byte, &data) in self.from(offset).zip(data) {
            byte.value = (byte.value & !byte.writable) | (data & byte.writable);
        }
    }

    /// What the hardware gets of a guest's write, after [`write`](Self::write): bytes that are wholly ours are left out, and where a
    /// byte has bits of both, ours have the value that the guest would read.
    pub(super) fn forward(&self, offset: u16, data: &[u8]) -> Vec<Forward> {
        let mut forwards = Vec::new();
        let mut run = Vec::new();
        for (at, (byte, &data)) in (offset..=u16::MAX).zip(self.0.iter().skip(offset.into()).zip(data)) {
            if byte.mask == 0xff {
                Forward::split(at - run.len() as u16, &run, &mut forwards);
                run.clear();
            } else {
                run.push((data & !byte.mask) | (byte.value & byte.mask));
            }
        }
        let end = usize::from(offset).saturating_add(data.len()).min(self.0.len());
        Forward::split((end.saturating_sub(run.len())) as u16, &run, &mut forwards);
        forwards
    }

    /// Our bits as they were at first.
    pub(super) fn reset(&mut self) {
        for Byte { mask: _, value, writable: _, at_reset } in &mut self.0 {
            *value = *at_reset;
        }
    }

    fn from(&mut self, offset: u16) -> impl Iterator<Item = &mut Byte> {
        self.0.iter_mut().skip(offset.into())
    }
}
