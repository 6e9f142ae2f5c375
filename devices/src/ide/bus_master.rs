//! One channel's bus master registers (Programming Interface for Bus Master IDE Controller 1.0, 2).

/// Bits of the Command register.
mod command {
    pub(super) const START: u8 = 1 << 0;
    /// The controller writes to memory: a read from the disk.
    pub(super) const TO_MEMORY: u8 = 1 << 3;
}

/// Bits of the Status register.
mod status {
    pub(super) const ACTIVE: u8 = 1 << 0;
    pub(super) const ERROR: u8 = 1 << 1;
    pub(super) const INTERRUPT: u8 = 1 << 2;
    /// "Drive 0 and 1 are DMA capable", for software to set and to find.
    pub(super) const CAPABLE: u8 = 1 << 5 | 1 << 6;
}

/// A register, of eight bytes that a channel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Command,
    Status,
    Table { byte: u8 },
    Reserved,
}

impl Register {
    fn decode(offset: u8) -> Self {
        match offset & 7 {
            0 => Register::Command,
            2 => Register::Status,
            byte @ 4..=7 => Register::Table { byte: byte - 4 },
            _ => Register::Reserved,
        }
    }
}

/// One channel's bus master.
#[derive(Clone, Debug, Default)]
pub(super) struct BusMaster {
    started: bool,
    to_memory: bool,
    /// Started, and neither stopped nor through with its table.
    pub(super) active: bool,
    /// A transfer went outside guest memory.
    pub(super) error: bool,
    /// The disk has raised INTRQ, whether or not the guest lets it through.
    pub(super) interrupt: bool,
    capable: u8,
    table: u32,
}

impl BusMaster {
    pub(super) fn reset(&mut self) {
        let Self { started, to_memory, active, error, interrupt, capable, table } = self;
        for flag in [started, to_memory, active, error, interrupt] {
            *flag = false;
        }
        *capable = 0;
        *table = 0;
    }

    /// Where the PRD table begins.
    pub(super) fn table(&self) -> u32 {
        self.table
    }

    /// The byte at `offset` of the channel's eight.
    pub(super) fn read(&self, offset: u8) -> u8 {
        let bit = |on, bit| if on { bit } else { 0 };
        match Register::decode(offset) {
            Register::Command => bit(self.started, command::START) | bit(self.to_memory, command::TO_MEMORY),
            Register::Status => {
                bit(self.active, status::ACTIVE)
                    | bit(self.error, status::ERROR)
                    | bit(self.interrupt, status::INTERRUPT)
                    | self.capable
            }
            Register::Table { byte } => (self.table >> (8 * byte)) as u8,
            Register::Reserved => 0,
        }
    }

    /// Writes the byte at `offset` of the channel's eight; true when that stopped a transfer.
    pub(super) fn write(&mut self, offset: u8, value: u8) -> bool {
        match Register::decode(offset) {
            Register::Command => return self.command(value),
            Register::Status => {
                self.error &= value & status::ERROR == 0;
                self.interrupt &= value & status::INTERRUPT == 0;
                self.capable = value & status::CAPABLE;
            }
            Register::Table { byte } => {
                let shift = 8 * byte;
                self.table = (self.table & !(0xff << shift) | u32::from(value) << shift) & !3;
            }
            Register::Reserved => {}
        }
        false
    }

    fn command(&mut self, value: u8) -> bool {
        let start = value & command::START != 0;
        let stopped = self.active && !start;
        if !self.active {
            // "This bit must not be changed when the bus master function is active."
            self.to_memory = value & command::TO_MEMORY != 0;
        }
        if start != self.started {
            self.started = start;
            self.active = start;
        }
        stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_bits_are_cleared_by_ones() {
        let mut master = BusMaster { error: true, interrupt: true, ..BusMaster::default() };
        master.write(2, 0x60);
        assert_eq!(master.read(2), 0x66);
        master.write(2, 0x24);
        assert_eq!(master.read(2), 0x22);
        master.write(2, 0x02);
        assert_eq!(master.read(2), 0x00);
    }

    #[test]
    fn direction_is_locked_while_active() {
        let mut master = BusMaster::default();
        master.write(0, 0x09);
        master.write(0, 0x01);
        assert_eq!((master.read(0), master.read(2)), (0x09, 0x01));
        assert!(master.write(0, 0x00), "stopped");
        master.write(0, 0x00);
        assert_eq!((master.read(0), master.read(2)), (0x00, 0x00));
    }

    #[test]
    fn it_becomes_active_only_when_started_anew() {
        let mut master = BusMaster::default();
        master.write(0, 0x01);
        master.active = false; // as at the end of the table
        master.write(0, 0x01);
        assert_eq!(master.read(2), 0x00);
        master.write(0, 0x00);
        master.write(0, 0x01);
        assert_eq!(master.read(2), 0x01);
    }

    #[test]
    fn the_table_is_dword_aligned() {
        let mut master = BusMaster::default();
        for (byte, value) in [0x7f, 0x56, 0x34, 0x12].into_iter().enumerate() {
            master.write(4 + byte as u8, value);
        }
        assert_eq!(master.table(), 0x1234_567c);
        assert_eq!(master.read(4), 0x7c);
    }
}
