//! Guests of a mock function.

mod any;
mod bars;
mod failures;
mod line;
mod messages;
mod reset;

use super::Function;
use crate::mock::{Bench, Spec};
use kagero_devices::pci::{command, register};

const COMMAND: u16 = register::COMMAND as u16;
const BAR0: u16 = register::BAR0 as u16;

/// A function, and what its guest's driver does with it.
struct Guest {
    bench: Bench,
    function: Function,
}

impl Guest {
    fn of(spec: Spec) -> Self {
        let bench = Bench::new();
        let function = Function::new(bench.hardware(spec), bench.machine(), true, false).unwrap();
        let mut guest = Guest { bench, function };
        assert_eq!(guest.lines(), ["ring Error 0 *", "ring Request 0 *", "write Config 0x4 [00, 00]"]);
        guest
    }

    fn new() -> Self {
        Self::of(Spec::full())
    }

    /// What happened since the last time. Nothing may have gone wrong.
    fn lines(&mut self) -> Vec<String> {
        assert_eq!(self.bench.mistakes(), [""; 0]);
        if let Some(error) = self.function.take_error() {
            panic!("{error}");
        }
        self.bench.take_journal()
    }

    /// As [`lines`](Self::lines), less writes to configuration space.
    fn effects(&mut self) -> Vec<String> {
        let mut lines = self.lines();
        lines.retain(|line| !line.starts_with("write Config"));
        lines
    }

    fn write16(&mut self, offset: u16, value: u16) -> bool {
        self.function.write_config(offset, &value.to_le_bytes())
    }

    fn write32(&mut self, offset: u16, value: u32) -> bool {
        self.function.write_config(offset, &value.to_le_bytes())
    }

    fn read16(&mut self, offset: u16) -> u16 {
        let mut out = [0; 2];
        self.function.read_config(offset, &mut out);
        u16::from_le_bytes(out)
    }

    /// As firmware does it: BAR 0 at FE000000h, BAR 2 at C000h, BAR 4 at 8_0000_0000h, decoding.
    fn configured() -> Self {
        let mut guest = Self::new();
        guest.write32(BAR0, 0xfe00_0000);
        guest.write32(BAR0 + 8, 0xc000);
        guest.write32(BAR0 + 16, 0);
        guest.write32(BAR0 + 20, 8);
        assert!(guest.write16(COMMAND, command::IO | command::MEMORY | command::MASTER));
        let _ = guest.lines();
        guest
    }
}
