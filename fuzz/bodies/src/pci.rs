//! PCI configuration: the address and data ports, and the spaces behind them.

use kagero_devices::pci::{Bar, BarChange, ConfigMechanism, ConfigSpace, Identity, Selected};
use kagero_devices::platform::{HostBridge, IsaBridge};
use kagero_devices::register::Fault;

use crate::device::{Device, Surroundings};
use crate::input::Input;

/// Functions at 0.0, 1.0 and 2.0; there is nothing at the others.
#[derive(Clone)]
pub(crate) struct Functions {
    mechanism: ConfigMechanism,
    host: HostBridge,
    isa: IsaBridge,
    /// With every kind of BAR.
    other: ConfigSpace,
}

impl Functions {
    pub(crate) fn new() -> Self {
        let identity = Identity { vendor: 0x1234, device: 0x5678, class: 0x01_06_01, revision: 0 };
        let other = ConfigSpace::new(identity)
            .with_bar(0, Bar::Io { size: 16 })
            .with_bar(1, Bar::Memory32 { size: 4096, prefetchable: false })
            .with_bar(2, Bar::Memory64 { size: 1 << 33, prefetchable: true })
            .with_bar(4, Bar::Io { size: 256 })
            .with_bar(5, Bar::Memory32 { size: 1 << 31, prefetchable: true })
            .with_writable(0xff, &[0xff]);
        Functions { mechanism: ConfigMechanism::new(), host: HostBridge::new(), isa: IsaBridge::new(), other }
    }

    fn write_function(&mut self, device: u8, register: u8, data: &[u8]) {
        match device {
            0 => self.host.write_config(register, data),
            1 => self.isa.write_config(register, data),
            2 => {
                let before: Vec<_> = (0..6).map(|bar| self.other.decoded(bar)).collect();
                let changes: Vec<_> = self.other.write(register, data).collect();
                self.check_changes(&before, &changes);
            }
            _ => {}
        }
    }

    /// A caller that maps memory by the changes alone maps the right memory.
    fn check_changes(&self, before: &[Option<u64>], changes: &[BarChange]) {
        for (bar, &from) in (0..).zip(before) {
            let to = self.other.decoded(bar);
            let expected = (from != to).then_some(BarChange { bar, from, to });
            assert_eq!(changes.iter().find(|change| change.bar == bar), expected.as_ref());
        }
    }
}

impl Device for Functions {
    type Port = u16;

    fn port(&self, input: &mut Input<'_>) -> u16 {
        if input.rarely(16) { input.u16() } else { 0xcf8 + input.below(8) as u16 }
    }

    fn read(&mut self, port: u16, out: &mut [u8], _: &Surroundings) -> Result<(), Fault> {
        match self.mechanism.select(port, out.len())? {
            Selected::Address => out.copy_from_slice(&self.mechanism.read_address().to_le_bytes()),
            Selected::Nothing => out.fill(0xff),
            Selected::Config(address) => match address.device {
                0 => self.host.config().read(address.register, out),
                1 => self.isa.config().read(address.register, out),
                2 => self.other.read(address.register, out),
                _ => out.fill(0xff),
            },
        }
        Ok(())
    }

    fn write(&mut self, port: u16, data: &[u8], _: &Surroundings) -> Result<(), Fault> {
        match self.mechanism.select(port, data.len())? {
            Selected::Address => {
                let value = data.try_into().expect("only whole dwords reach the address register");
                self.mechanism.write_address(u32::from_le_bytes(value));
            }
            Selected::Nothing => {}
            Selected::Config(address) => self.write_function(address.device, address.register, data),
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.mechanism.reset();
        self.host.reset();
        self.isa.reset();
        let before: Vec<_> = (0..6).map(|bar| self.other.decoded(bar)).collect();
        let changes: Vec<_> = self.other.reset().collect();
        self.check_changes(&before, &changes);
    }

    /// Points the window at a register, or moves a BAR.
    fn other(&mut self, input: &mut Input<'_>, _: &Surroundings) {
        if input.rarely(2) {
            let (device, register) = (input.below(4) as u32, u32::from(input.byte()));
            self.mechanism.write_address(1 << 31 | device << 11 | register);
        } else {
            let register = input.one_of(&[0x04, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24]);
            self.write_function(2, register, input.bytes(4));
        }
    }

    fn check(&mut self, _: &Surroundings) {
        let identity = [self.host.config().dword(0), self.isa.config().dword(0), self.other.dword(0)];
        assert_eq!(identity, [0x1237_8086, 0x7000_8086, 0x5678_1234], "nobody changes who it is");
        for bar in 0..6 {
            let (Some(base), Some(kind)) = (self.other.decoded(bar), self.other.bar(bar)) else { continue };
            assert!(base % kind.size() == 0 && base.checked_add(kind.size()).is_some(), "{bar}: {base:x}");
        }
        for pirq in 0..4 {
            assert!(self.isa.pirq_route(pirq).is_none_or(|irq| irq > 2 && irq < 16));
        }
    }
}
