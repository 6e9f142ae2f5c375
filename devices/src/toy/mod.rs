//! A toy machine to test controllers without a guest: RAM, disks in memory that serve a controller in random pieces, and a small
//! ATA driver that knows nothing of the controller but its registers.
//!
//! Everything is deterministic: the same seed gives the same run. Behind the feature `toy`, for tests and fuzzers.

mod disks;
mod driver;

use core::cell::RefCell;

use alloc::vec;
use alloc::vec::Vec;

pub use disks::{Disks, Pace};
pub use driver::{Data, Driver, Order, Registers, Reply, inb, inl, outb, outl};

use crate::memory::{DmaFault, DmaMemory};

/// RAM of a single-threaded machine, from guest physical address 0 on.
#[derive(Debug)]
pub struct Memory(RefCell<Vec<u8>>);

impl Memory {
    /// So many bytes of zeros.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Memory(RefCell::new(vec![0; bytes]))
    }

    /// Bytes of RAM.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.borrow().len() as u64
    }
}

impl DmaMemory for Memory {
    fn read(&self, gpa: u64, out: &mut [u8]) -> Result<(), DmaFault> {
        let memory = self.0.borrow();
        let from = usize::try_from(gpa).ok().and_then(|start| memory.get(start..)?.get(..out.len()));
        out.copy_from_slice(from.ok_or(DmaFault { gpa })?);
        Ok(())
    }

    fn write(&self, gpa: u64, data: &[u8]) -> Result<(), DmaFault> {
        let mut memory = self.0.borrow_mut();
        let to = usize::try_from(gpa).ok().and_then(|start| memory.get_mut(start..)?.get_mut(..data.len()));
        to.ok_or(DmaFault { gpa })?.copy_from_slice(data);
        Ok(())
    }
}

/// Numbers that look random (splitmix64) and are the same for the same seed.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Numbers that follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number less than `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number().checked_rem(end).unwrap_or(0)
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.number().to_le_bytes()[..chunk.len()]);
        }
        bytes
    }
}
