//! One passed-through PCI function, as the guest's board sees it.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::{Error, Hardware, Machine, Region};

/// The two address spaces that BARs decode in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// I/O ports.
    Io,
    /// Guest physical memory.
    Memory,
}

/// A range of addresses that a function answers at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decode {
    /// Ports or memory.
    pub space: Space,
    /// The first port or guest physical address.
    pub first: u64,
    /// Ports or bytes.
    pub length: u64,
    /// What answers there: a BAR or the ROM.
    pub region: Region,
}

/// A passed-through function.
#[derive(Debug)]
pub struct Function {
    hardware: Box<dyn Hardware>,
}

impl Function {
    /// Takes the function over: in D0, decoding nothing, without interrupts. It lies on the root bus or not, and is one of several in its
    /// slot or not.
    ///
    /// # Errors
    /// When the hardware does not answer.
    pub fn new(
        hardware: Box<dyn Hardware>,
        _machine: Arc<dyn Machine>,
        _root_bus: bool,
        _multifunction: bool,
    ) -> Result<Function, Error> {
        Ok(Function { hardware })
    }

    /// What people call it: `0000:03:00.0`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.hardware.name()
    }

    /// A guest's read of configuration space.
    pub fn read_config(&mut self, _offset: u16, out: &mut [u8]) {
        out.fill(0xff);
    }

    /// A guest's write there. True when [`decodes`](Self::decodes) says something else now.
    pub fn write_config(&mut self, _offset: u16, _data: &[u8]) -> bool {
        false
    }

    /// All ranges that the function answers at now, those that the guest reaches without an exit included.
    #[must_use]
    pub fn decodes(&self) -> Vec<Decode> {
        Vec::new()
    }

    /// A guest's read of a BAR or the ROM.
    pub fn read(&mut self, _region: Region, _offset: u64, out: &mut [u8]) {
        out.fill(0xff);
    }

    /// A guest's write there.
    pub fn write(&mut self, _region: Region, _offset: u64, _data: &[u8]) {}

    /// Its interrupt pin: 0 for INTA to 3 for INTD.
    #[must_use]
    pub fn pin(&self) -> Option<u8> {
        None
    }

    /// The pin leads to this interrupt line of the machine now, or to none.
    pub fn route_line(&mut self, _irq: Option<u8>) {}

    /// The machine is reset. True when [`decodes`](Self::decodes) says something else now.
    pub fn reset(&mut self) -> bool {
        false
    }

    /// Rings when the hardware has failed beyond repair.
    #[must_use]
    pub fn error_event(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Rings when the host wants the function back.
    #[must_use]
    pub fn request_event(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// What went wrong since it was last asked. Each kind of trouble is told once.
    pub fn take_error(&mut self) -> Option<Error> {
        None
    }
}
