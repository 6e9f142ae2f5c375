//! The PIIX IDE controller: two channels of two disks, PIO and bus-master DMA.

mod bus_master;
mod cable;
mod config;
mod pio;
mod prd;
mod transfer;

use cable::Cable;
use config::Config;

use crate::memory::{DmaFault, DmaMemory};
use crate::pci::BarChanges;
use crate::register::Fault;
use crate::storage::{Controller, Disk, Outcome, Request, Tag};

/// One of the controller's two cables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Ports 1F0h to 1F7h and 3F6h, interrupt 14.
    Primary,
    /// Ports 170h to 177h and 376h, interrupt 15.
    Secondary,
}

/// A register of the controller, as the bus names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// The command block, 1F0h or 170h on, by offset 0 to 7. Offset 0 is the data port.
    Command(Channel, u8),
    /// Alternate Status and Device Control: 3F6h or 376h.
    Control(Channel),
    /// The bus master's registers, by offset 0 to 15 in BAR 4.
    BusMaster(u8),
}

/// A register of the command block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommandBlock {
    Data,
    File(crate::ata::Register),
    /// Status when read, Command when written.
    Command,
}

impl CommandBlock {
    fn decode(offset: u8) -> Result<Self, Fault> {
        use crate::ata::Register;
        Ok(match offset {
            0 => CommandBlock::Data,
            1 => CommandBlock::File(Register::Features),
            2 => CommandBlock::File(Register::Count),
            3 => CommandBlock::File(Register::LbaLow),
            4 => CommandBlock::File(Register::LbaMid),
            5 => CommandBlock::File(Register::LbaHigh),
            6 => CommandBlock::File(Register::Device),
            7 => CommandBlock::Command,
            _ => return Err(Fault::NoRegister),
        })
    }
}

/// The controller.
///
/// After each [`write`](Self::write), [`read_data`](Self::read_data) and [`write_data`](Self::write_data), and each
/// [`read`](Self::read) of the data port, ask [`poll_request`](Controller::poll_request) until it gives `None`. Interrupt
/// levels, from [`irq`](Controller::irq), can change with every call, a read included. See [`Controller`] for the way of the payload.
#[derive(Clone, Debug)]
pub struct Ide {
    config: Config,
    cables: [Cable; 2],
}

impl Ide {
    /// A controller with these disks: primary device 0 and 1, secondary device 0 and 1.
    #[must_use]
    pub fn new(disks: [Option<Disk>; 4]) -> Self {
        let [a, b, c, d] = disks;
        Ide { config: Config::new(), cables: [Cable::new(0, [a, b]), Cable::new(1, [c, d])] }
    }

    /// The machine's reset. Commands under way are cancelled: poll requests afterwards, as after a register write.
    #[must_use = "the bus master's ports may have moved"]
    pub fn reset(&mut self) -> BarChanges {
        let Self { config, cables } = self;
        for cable in cables {
            cable.power_on();
        }
        config.reset()
    }

    /// A guest's read of `out.len()` bytes: 2 or 4 of the data port, 1 of other registers, 1, 2 or 4 of the bus master's.
    ///
    /// # Errors
    /// [`Fault`] when no register answers so; a bus then reads ones.
    pub fn read(&mut self, port: Port, out: &mut [u8]) -> Result<(), Fault> {
        match port {
            Port::Command(channel, offset) => match CommandBlock::decode(offset)? {
                CommandBlock::Data => self.read_data(channel, out.len(), out),
                CommandBlock::File(register) => {
                    *byte_mut(out)? = self.decoded(channel)?.read(register);
                    Ok(())
                }
                CommandBlock::Command => {
                    *byte_mut(out)? = self.decoded(channel)?.read_status();
                    Ok(())
                }
            },
            Port::Control(channel) => {
                *byte_mut(out)? = self.decoded(channel)?.alternate_status();
                Ok(())
            }
            Port::BusMaster(offset) => {
                let channel = bus_master_channel(offset, out.len())?;
                for (at, byte) in (offset..).zip(out) {
                    *byte = self.cable(channel).bus_master().read(at);
                }
                Ok(())
            }
        }
    }

    /// A guest's write, of widths as with [`read`](Self::read).
    ///
    /// # Errors
    /// [`Fault`] when no register takes it; a bus then drops it.
    pub fn write(&mut self, mem: &impl DmaMemory, port: Port, data: &[u8]) -> Result<(), Fault> {
        let mem = &Mastering { mem, enabled: self.config.masters() };
        match port {
            Port::Command(channel, offset) => match CommandBlock::decode(offset)? {
                CommandBlock::Data => self.write_data(channel, data.len(), data),
                CommandBlock::File(register) => {
                    self.decoded(channel)?.write(register, byte(data)?);
                    Ok(())
                }
                CommandBlock::Command => {
                    self.decoded(channel)?.command(mem, byte(data)?);
                    Ok(())
                }
            },
            Port::Control(channel) => {
                self.decoded(channel)?.write_control(byte(data)?);
                Ok(())
            }
            Port::BusMaster(offset) => {
                let channel = bus_master_channel(offset, data.len())?;
                for (at, byte) in (offset..).zip(data) {
                    self.cable(channel).write_bus_master(mem, at, *byte);
                }
                Ok(())
            }
        }
    }

    /// Many reads of the data port at once, each of `width` bytes: `rep insw` or `rep insl`.
    ///
    /// # Errors
    /// [`Fault`] when `width` is neither 2 nor 4, `out` is not a whole number of accesses, or the channel is switched off.
    pub fn read_data(&mut self, channel: Channel, width: usize, out: &mut [u8]) -> Result<(), Fault> {
        data_width(width, out.len())?;
        self.decoded(channel)?.read_data(out);
        Ok(())
    }

    /// Many writes of the data port at once, each of `width` bytes: `rep outsw` or `rep outsl`.
    ///
    /// # Errors
    /// As with [`read_data`](Self::read_data).
    pub fn write_data(&mut self, channel: Channel, width: usize, data: &[u8]) -> Result<(), Fault> {
        data_width(width, data.len())?;
        self.decoded(channel)?.write_data(data);
        Ok(())
    }

    /// Fills `out` from the PCI configuration space, from `offset` on.
    pub fn read_config(&self, offset: u8, out: &mut [u8]) {
        self.config.read(offset, out);
    }

    /// Writes to the PCI configuration space, and tells where the bus master's ports went.
    #[must_use = "the bus master's ports may have moved"]
    pub fn write_config(&mut self, offset: u8, data: &[u8]) -> BarChanges {
        self.config.write(offset, data)
    }

    /// The first of the bus master's 16 ports, while they are decoded.
    #[must_use]
    pub fn bus_master_base(&self) -> Option<u16> {
        self.config.bus_master()
    }

    fn cable(&mut self, channel: Channel) -> &mut Cable {
        let [primary, secondary] = &mut self.cables;
        match channel {
            Channel::Primary => primary,
            Channel::Secondary => secondary,
        }
    }

    /// The channel behind its own ports, unless the guest has switched them off.
    fn decoded(&mut self, channel: Channel) -> Result<&mut Cable, Fault> {
        if self.config.decodes(channel) { Ok(self.cable(channel)) } else { Err(Fault::NoRegister) }
    }

    fn owner(&mut self, tag: Tag) -> &mut Cable {
        self.cable(if tag.0 & 1 == 0 { Channel::Primary } else { Channel::Secondary })
    }
}

impl Controller for Ide {
    fn poll_request(&mut self) -> Option<Request> {
        self.cables.iter_mut().find_map(Cable::poll_request)
    }

    fn data_in(&mut self, mem: &impl DmaMemory, tag: Tag, at: u32, data: &[u8]) {
        let mem = &Mastering { mem, enabled: self.config.masters() };
        self.owner(tag).data_in(mem, tag, at, data);
    }

    fn data_out(&mut self, mem: &impl DmaMemory, tag: Tag, at: u32, out: &mut [u8]) -> Result<(), DmaFault> {
        let mem = &Mastering { mem, enabled: self.config.masters() };
        self.owner(tag).data_out(mem, tag, at, out)
    }

    fn complete(&mut self, _: &impl DmaMemory, tag: Tag, outcome: Outcome) {
        self.owner(tag).complete(tag, outcome);
    }

    fn irq(&self) -> u32 {
        let [primary, secondary] = &self.cables;
        u32::from(primary.intrq()) | u32::from(secondary.intrq()) << 1
    }
}

/// Guest memory as the function reaches it: not at all unless the guest has made it a bus master.
struct Mastering<'m, M> {
    mem: &'m M,
    enabled: bool,
}

impl<M: DmaMemory> DmaMemory for Mastering<'_, M> {
    fn read(&self, gpa: u64, out: &mut [u8]) -> Result<(), DmaFault> {
        if self.enabled { self.mem.read(gpa, out) } else { Err(DmaFault { gpa }) }
    }

    fn write(&self, gpa: u64, data: &[u8]) -> Result<(), DmaFault> {
        if self.enabled { self.mem.write(gpa, data) } else { Err(DmaFault { gpa }) }
    }
}

fn byte(data: &[u8]) -> Result<u8, Fault> {
    if let [byte] = data { Ok(*byte) } else { Err(Fault::Width) }
}

fn byte_mut(out: &mut [u8]) -> Result<&mut u8, Fault> {
    if let [byte] = out { Ok(byte) } else { Err(Fault::Width) }
}

fn data_width(width: usize, len: usize) -> Result<(), Fault> {
    if matches!(width, 2 | 4) && len.is_multiple_of(width) { Ok(()) } else { Err(Fault::Width) }
}

/// The channel that an access to the bus master's registers is for: eight bytes each.
fn bus_master_channel(offset: u8, width: usize) -> Result<Channel, Fault> {
    if !matches!(width, 1 | 2 | 4) {
        return Err(Fault::Width);
    }
    if !usize::from(offset).is_multiple_of(width) {
        return Err(Fault::Unaligned);
    }
    match offset {
        0..=7 => Ok(Channel::Primary),
        8..=15 => Ok(Channel::Secondary),
        _ => Err(Fault::NoRegister),
    }
}
