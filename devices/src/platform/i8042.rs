//! The 8042 keyboard controller, ports 60h and 64h, with nothing plugged in.
//!
//! It is here for what else hangs on it: the reset line, and the A20 gate that old boot code opens through it. Its interface
//! tests report a dead line and bytes to a device come back as timed out, so that neither SeaBIOS nor an operating system waits
//! for a keyboard.

use super::{Effect, byte, byte_mut};
use crate::register::Fault;

#[derive(Clone, Copy)]
enum Port {
    Data,
    /// Command when written, status when read.
    Command,
}

impl Port {
    fn decode(port: u16) -> Result<Self, Fault> {
        match port {
            0x60 => Ok(Port::Data),
            0x64 => Ok(Port::Command),
            _ => Err(Fault::NoRegister),
        }
    }
}

/// Where the next byte written to the data port goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    /// To the keyboard, which is not there.
    Keyboard,
    /// To the mouse, which is not there.
    Mouse,
    /// Into the command byte.
    CommandByte,
    /// Into the output port.
    OutputPort,
    /// Back to the data port as if a device had sent it.
    Echo,
}

/// What is waiting to be read from the data port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Empty,
    /// The controller's own answer.
    Answer(u8),
    /// As if from the keyboard.
    Keyboard(u8),
    /// FEh in place of an answer from a device that is not there.
    TimedOut {
        mouse: bool,
    },
}

/// The keyboard controller.
#[derive(Clone, Debug)]
pub struct I8042 {
    output: Output,
    expects: Expects,
    command_byte: u8,
    output_port: u8,
    /// The byte at 60h or 64h that was written last was a command.
    command_last: bool,
}

/// Status bits.
mod status {
    pub(super) const OUTPUT_FULL: u8 = 1 << 0;
    pub(super) const SYSTEM: u8 = 1 << 2;
    pub(super) const COMMAND: u8 = 1 << 3;
    pub(super) const NOT_LOCKED: u8 = 1 << 4;
    pub(super) const MOUSE: u8 = 1 << 5;
    pub(super) const TIMEOUT: u8 = 1 << 6;
}

/// Command byte bits.
mod command_byte {
    pub(super) const KEYBOARD_INTERRUPT: u8 = 1 << 0;
    pub(super) const MOUSE_INTERRUPT: u8 = 1 << 1;
    pub(super) const SYSTEM: u8 = 1 << 2;
    pub(super) const KEYBOARD_OFF: u8 = 1 << 4;
    pub(super) const MOUSE_OFF: u8 = 1 << 5;
}

/// Output port bits: both lines are high when idle.
mod output_port {
    pub(super) const NO_RESET: u8 = 1 << 0;
    pub(super) const A20: u8 = 1 << 1;
}

/// The interface tests' word for a clock line that is stuck low: no such port.
const CLOCK_STUCK_LOW: u8 = 0x01;

impl I8042 {
    const OUTPUT_PORT_AT_RESET: u8 = 0xcc | output_port::NO_RESET | output_port::A20;

    /// As after power-on.
    #[must_use]
    pub fn new() -> Self {
        Self {
            output: Output::Empty,
            expects: Expects::Keyboard,
            command_byte: 0,
            output_port: Self::OUTPUT_PORT_AT_RESET,
            command_last: false,
        }
    }

    /// Back to the state after power-on.
    pub fn reset(&mut self) {
        let Self { output, expects, command_byte, output_port, command_last } = self;
        *output = Output::Empty;
        *expects = Expects::Keyboard;
        *command_byte = 0;
        *output_port = Self::OUTPUT_PORT_AT_RESET;
        *command_last = false;
    }

    /// The interrupt lines: bit 0 for irq 1, bit 1 for irq 12.
    #[must_use]
    pub fn irq(&self) -> u32 {
        let enabled = |bit| u32::from(self.command_byte & bit != 0);
        match self.output {
            Output::Empty | Output::Answer(_) => 0,
            Output::Keyboard(_) | Output::TimedOut { mouse: false } => {
                enabled(command_byte::KEYBOARD_INTERRUPT)
            }
            Output::TimedOut { mouse: true } => enabled(command_byte::MOUSE_INTERRUPT) << 1,
        }
    }

    /// Reads `port`.
    ///
    /// # Errors
    /// [`Fault`] for anything but one byte at 60h or 64h.
    pub fn read(&mut self, port: u16, out: &mut [u8]) -> Result<(), Fault> {
        let out = byte_mut(out)?;
        *out = match Port::decode(port)? {
            Port::Data => match core::mem::replace(&mut self.output, Output::Empty) {
                Output::Empty => 0,
                Output::Answer(value) | Output::Keyboard(value) => value,
                Output::TimedOut { .. } => 0xfe,
            },
            Port::Command => self.status(),
        };
        Ok(())
    }

    /// Writes `port`.
    ///
    /// # Errors
    /// [`Fault`] for anything but one byte at 60h or 64h.
    pub fn write(&mut self, port: u16, data: &[u8]) -> Result<Option<Effect>, Fault> {
        let value = byte(data)?;
        Ok(match Port::decode(port)? {
            Port::Data => {
                self.command_last = false;
                self.data(value)
            }
            Port::Command => {
                self.command_last = true;
                self.command(value)
            }
        })
    }

    fn status(&self) -> u8 {
        let output = match self.output {
            Output::Empty => 0,
            Output::Answer(_) | Output::Keyboard(_) => status::OUTPUT_FULL,
            Output::TimedOut { mouse: false } => status::OUTPUT_FULL | status::TIMEOUT,
            Output::TimedOut { mouse: true } => status::OUTPUT_FULL | status::TIMEOUT | status::MOUSE,
        };
        let system = if self.command_byte & command_byte::SYSTEM != 0 { status::SYSTEM } else { 0 };
        let command = if self.command_last { status::COMMAND } else { 0 };
        status::NOT_LOCKED | output | system | command
    }

    fn data(&mut self, value: u8) -> Option<Effect> {
        match core::mem::replace(&mut self.expects, Expects::Keyboard) {
            Expects::Keyboard => self.output = Output::TimedOut { mouse: false },
            Expects::Mouse => self.output = Output::TimedOut { mouse: true },
            Expects::CommandByte => self.command_byte = value,
            Expects::Echo => self.output = Output::Keyboard(value),
            Expects::OutputPort => {
                self.output_port = value | output_port::NO_RESET;
                return (value & output_port::NO_RESET == 0).then_some(Effect::Reset);
            }
        }
        None
    }

    fn command(&mut self, command: u8) -> Option<Effect> {
        self.expects = Expects::Keyboard;
        match command {
            0x20 => self.output = Output::Answer(self.command_byte),
            0x60 => self.expects = Expects::CommandByte,
            0xa7 => self.command_byte |= command_byte::MOUSE_OFF,
            0xa8 => self.command_byte &= !command_byte::MOUSE_OFF,
            0xa9 | 0xab => self.output = Output::Answer(CLOCK_STUCK_LOW),
            0xaa => {
                self.command_byte |= command_byte::SYSTEM;
                self.output = Output::Answer(0x55);
            }
            0xad => self.command_byte |= command_byte::KEYBOARD_OFF,
            0xae => self.command_byte &= !command_byte::KEYBOARD_OFF,
            0xc0 | 0xe0 => self.output = Output::Answer(0),
            0xd0 => self.output = Output::Answer(self.output_port),
            0xd1 => self.expects = Expects::OutputPort,
            // Linux sends D3h to find a mouse port, and believes in it only if the echo is marked as the mouse's: ours is not.
            0xd2 | 0xd3 => self.expects = Expects::Echo,
            0xd4 => self.expects = Expects::Mouse,
            0xdd => self.output_port &= !output_port::A20,
            0xdf => self.output_port |= output_port::A20,
            // Pulses low those of output port bits 0 to 3 that are zero in the command.
            0xf0..=0xff => return (command & output_port::NO_RESET == 0).then_some(Effect::Reset),
            _ => {}
        }
        None
    }
}

impl Default for I8042 {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(device: &mut I8042, port: u16) -> u8 {
        let mut out = [0xaa];
        device.read(port, &mut out).unwrap();
        out[0]
    }

    fn command(device: &mut I8042, command: u8, data: &[u8]) -> Option<Effect> {
        let mut effect = device.write(0x64, &[command]).unwrap();
        for byte in data {
            effect = device.write(0x60, &[*byte]).unwrap();
        }
        effect
    }

    fn answer(device: &mut I8042) -> Option<u8> {
        (read(device, 0x64) & 1 != 0).then(|| read(device, 0x60))
    }

    #[test]
    fn is_well_but_alone() {
        let mut device = I8042::new();
        assert_eq!(read(&mut device, 0x64), 0x10);
        command(&mut device, 0xaa, &[]);
        assert_eq!(answer(&mut device), Some(0x55));
        assert_eq!(read(&mut device, 0x64), 0x1c);
        for test in [0xa9, 0xab] {
            command(&mut device, test, &[]);
            assert_eq!(answer(&mut device), Some(1));
        }
        command(&mut device, 0xd3, &[0x5a]);
        assert_eq!(read(&mut device, 0x64) & 0x21, 0x01, "not from a mouse");
        assert_eq!(answer(&mut device), Some(0x5a));
        assert_eq!(answer(&mut device), None);
    }

    #[test]
    fn keyboard_commands_time_out_at_once() {
        let mut device = I8042::new();
        command(&mut device, 0x60, &[0x03]);
        assert_eq!(device.irq(), 0);
        device.write(0x60, &[0xf2]).unwrap();
        assert_eq!(device.irq(), 1);
        assert_eq!(read(&mut device, 0x64), 0x51);
        assert_eq!(answer(&mut device), Some(0xfe));
        assert_eq!(device.irq(), 0);
        command(&mut device, 0xd4, &[0xf2]);
        assert_eq!((device.irq(), answer(&mut device)), (2, Some(0xfe)));
    }

    #[test]
    fn resets_and_gates_a20() {
        let mut device = I8042::new();
        assert_eq!(command(&mut device, 0xfe, &[]), Some(Effect::Reset));
        assert_eq!(command(&mut device, 0xff, &[]), None);
        assert_eq!(command(&mut device, 0xd1, &[0xdf]), None);
        assert_eq!(command(&mut device, 0xd1, &[0xde]), Some(Effect::Reset));
        command(&mut device, 0xdd, &[]);
        command(&mut device, 0xd0, &[]);
        assert_eq!(answer(&mut device), Some(0xdd));
        command(&mut device, 0xdf, &[]);
        command(&mut device, 0xd0, &[]);
        assert_eq!(answer(&mut device), Some(0xdf));
    }
}
