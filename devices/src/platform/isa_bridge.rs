//! The 82371SB (PIIX3) ISA bridge, function 01.0, for its interrupt routing.

use crate::pci::{ConfigSpace, Identity, command};

/// PIRQ Route Control A to D.
const PIRQRC: u8 = 0x60;
/// No interrupt comes through.
const NOT_ROUTED: u8 = 0x80;
/// ISA interrupts that a PIRQ may be routed to: not timer, keyboard, cascade, clock and coprocessor (82371SB, 2.2.7).
const ROUTABLE: u16 = 0b1101_1110_1111_1000;

/// Which of the four PIRQ lines, 0 for A, the interrupt pin (0 for INTA) of the device in `slot` of bus 0 leads to.
///
/// Firmware and the ACPI tables know the same wiring.
#[must_use]
pub fn pirq_of(slot: u8, pin: u8) -> u8 {
    slot.wrapping_add(pin).wrapping_sub(1) & 3
}

/// The ISA bridge.
#[derive(Clone, Debug)]
pub struct IsaBridge {
    config: ConfigSpace,
}

impl IsaBridge {
    /// As after power-on: no PIRQ is routed.
    #[must_use]
    pub fn new() -> Self {
        let always = command::IO | command::MEMORY | command::MASTER;
        let config =
            ConfigSpace::new(Identity { vendor: 0x8086, device: 0x7000, class: 0x06_01_00, revision: 0 })
                .with_multifunction()
                .with_subsystem(0x1af4, 0x1100)
                .with_value(0x04, &always.to_le_bytes())
                .with_writable(0x04, &command::SERR.to_le_bytes())
                .with_value(0x06, &[0x00, 0x02])
                .with_value(0x4c, &[0x4d, 0x00, 0x03, 0x00]) // recovery times, X-bus chip select
                .with_writable(0x4c, &[0xff, 0x00, 0xff, 0x01])
                .with_value(PIRQRC, &[NOT_ROUTED; 4])
                .with_writable(PIRQRC, &[0x8f; 4])
                .with_value(0x69, &[0x02]) // top of memory
                .with_writable(0x69, &[0xff, 0xff])
                .with_value(0x70, &[0x80]) // motherboard device interrupt
                .with_writable(0x70, &[0xef])
                .with_value(0x76, &[0x0c, 0x0c]) // motherboard device DMA
                .with_writable(0x76, &[0x8f, 0x8f])
                .with_writable(0x78, &[0xff, 0xff]) // programmable chip select
                .with_writable(0x82, &[0x0f]); // deterministic latency
        Self { config }
    }

    /// Back to the state after power-on.
    pub fn reset(&mut self) {
        let Self { config } = self;
        let _no_bars = config.reset();
    }

    /// The configuration space, to read.
    #[must_use]
    pub fn config(&self) -> &ConfigSpace {
        &self.config
    }

    /// A guest's write to the configuration space. Ask [`pirq_route`](Self::pirq_route) again after one to 60h to 63h.
    pub fn write_config(&mut self, offset: u8, data: &[u8]) {
        let _no_bars = self.config.write(offset, data);
    }

    /// The ISA interrupt that PIRQ line `pirq` (0 for A to 3 for D) raises, at the PIC and at the I/O APIC's input of that number.
    #[must_use]
    pub fn pirq_route(&self, pirq: u8) -> Option<u8> {
        let route = self.config.byte(PIRQRC + (pirq & 3));
        let irq = route & 0x0f;
        (route & NOT_ROUTED == 0 && ROUTABLE & (1 << irq) != 0).then_some(irq)
    }
}

impl Default for IsaBridge {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_what_may_be_routed() {
        let mut bridge = IsaBridge::new();
        assert_eq!((0..4).map(|pirq| bridge.pirq_route(pirq)).collect::<alloc::vec::Vec<_>>(), [None; 4]);
        bridge.write_config(0x60, &[10, 0x8b, 8, 0x75]);
        let routes: alloc::vec::Vec<_> = (0..4).map(|pirq| bridge.pirq_route(pirq)).collect();
        assert_eq!(routes, [Some(10), None, None, Some(5)]);
        bridge.reset();
        assert_eq!(bridge.pirq_route(0), None);
    }

    #[test]
    fn slots_take_turns() {
        assert_eq!(
            [pirq_of(1, 0), pirq_of(2, 0), pirq_of(3, 0), pirq_of(3, 3), pirq_of(0, 0)],
            [0, 1, 2, 1, 3]
        );
    }
}
