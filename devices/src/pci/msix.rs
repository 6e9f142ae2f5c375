//! The MSI-X table and the pending bits of a function, as its guest programs them (PCI Local Bus 3.0, 6.8.2).

use alloc::vec;
use alloc::vec::Vec;

use super::message::Message;
use crate::register::Fault;

/// A vector sends another message than before, or sends again, or no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorChange {
    /// Which.
    pub vector: u16,
    /// What it sent; `None` while it was masked.
    pub from: Option<Message>,
    /// What it sends now.
    pub to: Option<Message>,
}

/// One entry: 16 bytes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Address, upper address, data, Vector Control.
    registers: [u32; 4],
    pending: bool,
}

impl Entry {
    /// Vector Control: masked, as all are after a reset.
    const MASKED: u32 = 1;
    const AFTER_RESET: Entry = Entry { registers: [0, 0, 0, Self::MASKED], pending: false };

    fn message(&self) -> Option<Message> {
        let [low, high, data, control] = self.registers;
        (control & Self::MASKED == 0)
            .then(|| Message { address: u64::from(high) << 32 | u64::from(low), data })
    }
}

/// The table, and the pending bits. Who enables MSI-X is in the [`Filter`](super::Filter).
///
/// A vector that wants to send while [`message`](Self::message) is `None` is [pended](Self::pend); after a change that gives it a message,
/// [`take_pending`](Self::take_pending) says whether to send it.
#[derive(Clone, Debug)]
pub struct MsiXTable {
    entries: Vec<Entry>,
    /// The capability's Function Mask.
    masked: bool,
}

impl MsiXTable {
    /// All vectors are masked. There are 1 to 2,048; another number becomes the nearest of these.
    #[must_use]
    pub fn new(vectors: u16) -> Self {
        MsiXTable { entries: vec![Entry::AFTER_RESET; vectors.clamp(1, 2048).into()], masked: false }
    }

    /// Back to the state after [`new`](Self::new).
    pub fn reset(&mut self) {
        let MsiXTable { entries, masked } = self;
        entries.fill(Entry::AFTER_RESET);
        *masked = false;
    }

    /// How many.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        self.entries.len() as u16
    }

    /// What a vector sends; `None` while it or the function is masked, and when there is no such vector.
    #[must_use]
    pub fn message(&self, vector: u16) -> Option<Message> {
        self.entries.get(usize::from(vector)).filter(|_| !self.masked)?.message()
    }

    /// Reads the table, `offset` bytes from its start.
    ///
    /// # Errors
    /// What is no aligned dword or qword is undefined by the specification (6.8.2), and a [`Fault`] here.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        let (vector, register) = self.decode(offset, out.len())?;
        let registers = self.entries.get(vector).ok_or(Fault::NoRegister)?.registers;
        for (out, value) in out.chunks_exact_mut(4).zip(&registers[register..]) {
            out.copy_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }

    /// A guest's write to the table, and what it changed: `None` for most, as drivers mask a vector while they program it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[must_use = "a vector may send elsewhere"]
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<Option<VectorChange>, Fault> {
        /// Reserved bits stay zero: the address is one of a dword, and Vector Control has a mask bit.
        const WRITABLE: [u32; 4] = [!3, !0, !0, Entry::MASKED];
        let (index, register) = self.decode(offset, data.len())?;
        let vector = index as u16;
        let from = self.message(vector);
        let entry = self.entries.get_mut(index).ok_or(Fault::NoRegister)?;
        for ((value, mask), data) in
            entry.registers.iter_mut().zip(WRITABLE).skip(register).zip(data.chunks_exact(4))
        {
            *value = data.try_into().map_or(0, u32::from_le_bytes) & mask;
        }
        let to = self.message(vector);
        Ok((from != to).then_some(VectorChange { vector, from, to }))
    }

    /// Masks all vectors, or gives back to each its own state. What changed follows.
    #[must_use = "vectors may send no more, or again"]
    pub fn mask_function(&mut self, masked: bool) -> Vec<VectorChange> {
        if self.masked == masked {
            return Vec::new();
        }
        self.masked = masked;
        let messages =
            (0..).zip(&self.entries).filter_map(|(vector, entry)| Some((vector, entry.message()?)));
        messages
            .map(|(vector, message)| match masked {
                true => VectorChange { vector, from: Some(message), to: None },
                false => VectorChange { vector, from: None, to: Some(message) },
            })
            .collect()
    }

    /// Reads the pending bits, `offset` bytes from their start. Writes to them are dropped.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_pending(&self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        let offset = aligned(offset, out.len())?;
        if offset >= self.entries.len().div_ceil(64) * 8 {
            return Err(Fault::NoRegister);
        }
        let mut entries = self.entries.iter().skip(offset * 8);
        for byte in out {
            *byte = entries
                .by_ref()
                .take(8)
                .enumerate()
                .fold(0, |bits, (i, entry)| bits | u8::from(entry.pending) << i);
        }
        Ok(())
    }

    /// A vector wants to send and may not now.
    pub fn pend(&mut self, vector: u16) {
        if let Some(entry) = self.entries.get_mut(usize::from(vector)) {
            entry.pending = true;
        }
    }

    /// Whether a vector wanted to send. It is forgotten.
    #[must_use = "the interrupt is lost otherwise"]
    pub fn take_pending(&mut self, vector: u16) -> bool {
        self.entries.get_mut(usize::from(vector)).is_some_and(|entry| core::mem::take(&mut entry.pending))
    }

    /// Which entry and which of its registers is meant.
    fn decode(&self, offset: u64, width: usize) -> Result<(usize, usize), Fault> {
        let offset = aligned(offset, width)?;
        let vector = offset / 16;
        if vector < self.entries.len() { Ok((vector, offset % 16 / 4)) } else { Err(Fault::NoRegister) }
    }
}

fn aligned(offset: u64, width: usize) -> Result<usize, Fault> {
    match width {
        4 | 8 if offset.is_multiple_of(width as u64) => {
            usize::try_from(offset).map_err(|_| Fault::NoRegister)
        }
        4 | 8 => Err(Fault::Unaligned),
        _ => Err(Fault::Width),
    }
}
