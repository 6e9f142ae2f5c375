//! The ISA DMA controllers and their page registers, as far as anyone looks.

use super::{byte, byte_mut};
use crate::register::Fault;

#[derive(Clone, Copy)]
enum Port {
    Controller,
    Page(usize),
}

impl Port {
    fn decode(port: u16) -> Result<Self, Fault> {
        match port {
            0x00..=0x0f | 0xc0..=0xdf => Ok(Port::Controller),
            0x80..=0x8f => Ok(Port::Page(usize::from(port & 0x0f))),
            _ => Err(Fault::NoRegister),
        }
    }
}

/// Ports 00h to 0Fh, C0h to DFh and 80h to 8Fh.
///
/// No device here does ISA DMA. Firmware sets the controllers up all the same: they take writes and read as idle. The page
/// registers are storage; the one at 80h, which steers no channel, takes POST codes and the writes by which guests pass a microsecond.
#[derive(Clone, Debug, Default)]
pub struct IsaDma {
    pages: [u8; 16],
}

impl IsaDma {
    /// As after power-on.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Back to the state after power-on.
    pub fn reset(&mut self) {
        let Self { pages } = self;
        *pages = [0; 16];
    }

    /// The last POST code.
    #[must_use]
    pub fn post_code(&self) -> u8 {
        self.pages[0]
    }

    /// Reads `port`.
    ///
    /// # Errors
    /// [`Fault`] for anything but one byte at one of the ports.
    pub fn read(&mut self, port: u16, out: &mut [u8]) -> Result<(), Fault> {
        *byte_mut(out)? = match Port::decode(port)? {
            Port::Controller => 0,
            Port::Page(index) => self.pages[index],
        };
        Ok(())
    }

    /// Writes `port`.
    ///
    /// # Errors
    /// [`Fault`] for anything but one byte at one of the ports.
    pub fn write(&mut self, port: u16, data: &[u8]) -> Result<(), Fault> {
        let value = byte(data)?;
        match Port::decode(port)? {
            Port::Controller => {}
            Port::Page(index) => self.pages[index] = value,
        }
        Ok(())
    }
}
