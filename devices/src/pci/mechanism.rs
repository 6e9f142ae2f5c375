//! Configuration mechanism #1: an address register at port CF8h, a window on the register it names at CFCh (PCI Local Bus 3.0, 3.2.2.3.2).

use crate::register::Fault;

/// The ports of an access, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Address,
    Data { byte: u8 },
}

impl Port {
    fn decode(port: u16, width: usize) -> Result<Self, Fault> {
        match (port, width) {
            (0xcf8, 4) => Ok(Port::Address),
            // Only a whole dword reaches the address register; CF9h alone is the PIIX's reset control.
            (0xcf8..=0xcfb, _) => Err(Fault::Width),
            (0xcfc..=0xcff, 1 | 2 | 4) => {
                let byte = (port - 0xcfc) as u8;
                if usize::from(byte) + width > 4 { Err(Fault::Unaligned) } else { Ok(Port::Data { byte }) }
            }
            (0xcfc..=0xcff, _) => Err(Fault::Width),
            _ => Err(Fault::NoRegister),
        }
    }
}

/// A register in some function's configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConfigAddress {
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
    /// Offset in the configuration space, of a byte.
    pub register: u8,
}

/// What an access to the ports reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// The address register itself: use [`ConfigMechanism::read_address`] and [`write_address`](ConfigMechanism::write_address).
    Address,
    /// A configuration register: hand the access to that function. Without such a function, reads are ones and writes vanish.
    Config(ConfigAddress),
    /// Nothing, as the address register is not enabled: reads are ones and writes vanish.
    Nothing,
}

/// The address register. Ports CF8h to CFFh, less byte accesses to CF9h.
#[derive(Clone, Debug, Default)]
pub struct ConfigMechanism {
    address: u32,
}

impl ConfigMechanism {
    const ENABLE: u32 = 1 << 31;

    /// Reset: disabled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Back to the state after [`new`](Self::new).
    pub fn reset(&mut self) {
        let Self { address } = self;
        *address = 0;
    }

    /// What an access of `width` bytes to `port` reaches now.
    ///
    /// # Errors
    /// [`Fault`] when the ports have no such access.
    pub fn select(&self, port: u16, width: usize) -> Result<Selected, Fault> {
        Ok(match Port::decode(port, width)? {
            Port::Address => Selected::Address,
            Port::Data { byte } if self.address & Self::ENABLE != 0 => {
                let [register, function, bus, _] = self.address.to_le_bytes();
                Selected::Config(ConfigAddress {
                    bus,
                    device: function >> 3,
                    function: function & 7,
                    register: (register & 0xfc) | byte,
                })
            }
            Port::Data { .. } => Selected::Nothing,
        })
    }

    /// The address register.
    #[must_use]
    pub fn read_address(&self) -> u32 {
        self.address
    }

    /// Sets the address register. Reserved bits stay zero: guests find mechanism #1 by reading back 80000000h.
    pub fn write_address(&mut self, value: u32) {
        self.address = value & 0x80ff_fffc;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_register_under_the_window() {
        let mut ports = ConfigMechanism::new();
        assert_eq!(ports.select(0xcfc, 4), Ok(Selected::Nothing));
        ports.write_address(0x8001_0b43);
        assert_eq!(ports.read_address(), 0x8001_0b40);
        let register =
            |register| Ok(Selected::Config(ConfigAddress { bus: 1, device: 1, function: 3, register }));
        assert_eq!(ports.select(0xcfc, 4), register(0x40));
        assert_eq!(ports.select(0xcfe, 2), register(0x42));
        assert_eq!(ports.select(0xcff, 1), register(0x43));
        assert_eq!(ports.select(0xcf8, 4), Ok(Selected::Address));
    }

    #[test]
    fn names_bad_accesses() {
        let ports = ConfigMechanism::new();
        assert_eq!(ports.select(0xcff, 2), Err(Fault::Unaligned));
        assert_eq!(ports.select(0xcfc, 3), Err(Fault::Width));
        assert_eq!(ports.select(0xcf9, 1), Err(Fault::Width));
        assert_eq!(ports.select(0xcf7, 1), Err(Fault::NoRegister));
    }
}
