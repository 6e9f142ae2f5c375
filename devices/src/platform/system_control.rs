//! Two ports that reset the machine: System Control Port A (92h) and the PIIX's Reset Control (CF9h).

use super::{Effect, byte, byte_mut};
use crate::register::Fault;

/// Port 92h. Its A20 bit is storage: address line 20 is never masked here.
#[derive(Clone, Debug)]
pub struct SystemControlA {
    value: u8,
}

impl SystemControlA {
    const RESET: u8 = 1 << 0;
    const A20: u8 = 1 << 1;

    /// As after power-on, with A20 shown open.
    #[must_use]
    pub fn new() -> Self {
        Self { value: Self::A20 }
    }

    /// Back to the state after power-on.
    pub fn reset(&mut self) {
        let Self { value } = self;
        *value = Self::A20;
    }

    /// Reads the port.
    ///
    /// # Errors
    /// [`Fault::Width`] for anything but one byte.
    pub fn read(&mut self, out: &mut [u8]) -> Result<(), Fault> {
        *byte_mut(out)? = self.value;
        Ok(())
    }

    /// Writes the port.
    ///
    /// # Errors
    /// [`Fault::Width`] for anything but one byte.
    pub fn write(&mut self, data: &[u8]) -> Result<Option<Effect>, Fault> {
        let value = byte(data)?;
        self.value = value & !Self::RESET;
        Ok((value & Self::RESET != 0).then_some(Effect::Reset))
    }
}

impl Default for SystemControlA {
    fn default() -> Self {
        Self::new()
    }
}

/// Port CF9h, byte accesses only: wider ones at CF8h are the PCI address register.
#[derive(Clone, Debug, Default)]
pub struct ResetControl {
    value: u8,
}

impl ResetControl {
    const RESET_CPU: u8 = 1 << 2;

    /// As after power-on.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Back to the state after power-on.
    pub fn reset(&mut self) {
        let Self { value } = self;
        *value = 0;
    }

    /// Reads the port.
    ///
    /// # Errors
    /// [`Fault::Width`] for anything but one byte.
    pub fn read(&mut self, out: &mut [u8]) -> Result<(), Fault> {
        *byte_mut(out)? = self.value;
        Ok(())
    }

    /// Writes the port. Hard and soft resets (bit 1) are the same here.
    ///
    /// # Errors
    /// [`Fault::Width`] for anything but one byte.
    pub fn write(&mut self, data: &[u8]) -> Result<Option<Effect>, Fault> {
        let value = byte(data)?;
        self.value = value & !Self::RESET_CPU;
        Ok((value & Self::RESET_CPU != 0).then_some(Effect::Reset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_and_a20() {
        let mut port = SystemControlA::new();
        assert_eq!(port.write(&[0x00]), Ok(None));
        let mut out = [0xff];
        assert_eq!(port.read(&mut out), Ok(()));
        assert_eq!(out, [0]);
        assert_eq!(port.write(&[0x03]), Ok(Some(Effect::Reset)));
        assert_eq!(port.write(&[0, 0]), Err(Fault::Width));
    }

    #[test]
    fn cf9_resets_on_its_second_write() {
        let mut port = ResetControl::new();
        assert_eq!(port.write(&[0x02]), Ok(None));
        assert_eq!(port.write(&[0x06]), Ok(Some(Effect::Reset)));
        assert_eq!(port.write(&[0x0e]), Ok(Some(Effect::Reset)));
    }
}
