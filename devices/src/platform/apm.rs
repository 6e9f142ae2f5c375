//! Advanced Power Management Control and Status, ports B2h and B3h.

use super::{byte, byte_mut};
use crate::register::Fault;

#[derive(Clone, Copy)]
enum Port {
    Control,
    Status,
}

impl Port {
    fn decode(port: u16) -> Result<Self, Fault> {
        match port {
            0xb2 => Ok(Port::Control),
            0xb3 => Ok(Port::Status),
            _ => Err(Fault::NoRegister),
        }
    }
}

/// Two bytes of storage. A write to B2h would raise an SMI; this machine has no System Management Mode, and the FADT says so
/// (SMI_CMD is zero, ACPI is always on).
#[derive(Clone, Debug, Default)]
pub struct Apm {
    control: u8,
    status: u8,
}

impl Apm {
    /// As after power-on.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Back to the state after power-on.
    pub fn reset(&mut self) {
        let Self { control, status } = self;
        (*control, *status) = (0, 0);
    }

    /// Reads `port`.
    ///
    /// # Errors
    /// [`Fault`] for anything but one byte at B2h or B3h.
    pub fn read(&mut self, port: u16, out: &mut [u8]) -> Result<(), Fault> {
        *byte_mut(out)? = *self.register(port)?;
        Ok(())
    }

    /// Writes `port`.
    ///
    /// # Errors
    /// [`Fault`] for anything but one byte at B2h or B3h.
    pub fn write(&mut self, port: u16, data: &[u8]) -> Result<(), Fault> {
        *self.register(port)? = byte(data)?;
        Ok(())
    }

    fn register(&mut self, port: u16) -> Result<&mut u8, Fault> {
        Ok(match Port::decode(port)? {
            Port::Control => &mut self.control,
            Port::Status => &mut self.status,
        })
    }
}
