//! A passed-through function's configuration space, as its guest may see it.
//!
//! Some of it is the hardware's, and read and written there. The rest is ours: BARs and interrupts, since they lead into the guest's machine
//! and not the host's, and what is not the guest's to know or to change. Which bit is whose is written down once, in a table.

mod build;
mod capability;
mod express;
mod hidden;
mod messages;
mod outcome;
mod power;
mod table;

use alloc::vec::Vec;

use super::bar::{self, Bar, Bars};
use super::config::{command, register};
use express::ResetBit;
pub use messages::{Msi, MsiX, Place};
use messages::{MsiRegisters, MsiXRegisters};
pub use outcome::{Change, Forward, Outcome};
use power::Power;
use table::Table;

/// A function as it was found, with a type 0 header.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Its configuration space as the hardware says: 64 to 4,096 bytes. What is missing reads as ones.
    pub config: &'a [u8],
    /// What its BARs ask for. One that is no power of two, too small, or in the way of another is left out.
    pub bars: [Option<Bar>; 6],
    /// Bytes of its expansion ROM; 0 when it has none.
    pub rom: u32,
    /// Whether the guest finds it on a root bus, with no port above.
    pub root_bus: bool,
    /// Whether its interrupt pin can be used.
    pub intx: bool,
    /// Whether the guest finds several functions in this slot.
    pub multifunction: bool,
}

/// What stands between a guest and a function's configuration space.
///
/// Plain data: the caller reads and writes the hardware, and makes the guest's machine follow. It is for a function in D0 that has just been reset;
/// the guest, or who sets up its machine, gives the BARs their addresses.
#[derive(Clone, Debug)]
pub struct Filter {
    table: Table,
    bars: Bars,
    power: Option<Power>,
    msi: Option<MsiRegisters>,
    msix: Option<MsiXRegisters>,
    /// Of the PCI Express capability and of Advanced Features.
    resets: [Option<ResetBit>; 2],
}

/// The bits of the Command register that matter on our side too. The hardware gets them as well.
const COMMAND: u16 = command::IO | command::MEMORY | command::MASTER | command::INTX_DISABLE;

impl Filter {
    /// Looks at all that was found, once.
    #[must_use]
    pub fn new(found: &Found<'_>) -> Self {
        let config = found.config.get(..4096).unwrap_or(found.config);
        let mut bars = Bars::default();
        for (index, bar) in (0..).zip(found.bars) {
            // What has no place is left out.
            let _placed = bar.is_some_and(|bar| bars.place(index, bar));
        }
        if found.rom > 0 {
            bars.place_rom(found.rom);
        }
        let table = Table::new(config.len().max(64));
        let mut new = Filter { table, bars, power: None, msi: None, msix: None, resets: [None; 2] };
        new.hold_header(found);
        new.hold_standard(found, config);
        new.hold_extended(config);
        new
    }

    /// Makes what the hardware says, from `offset` on, what the guest reads: `(hardware & !mask) | (value & mask)`. Past the end there are ones.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        self.table.read(offset, data);
    }

    /// A guest's write from `offset` on.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Outcome {
        let mut outcome = self.change(|filter| {
            let before = filter.power_state();
            filter.table.write(offset, data);
            if let Some(power) = filter.power {
                power.settle(before, &mut filter.table);
            }
        });
        outcome.forwards = self.table.forward(offset, data);
        outcome.reset = self.resets.iter().flatten().any(|bit| bit.is_set_by(offset, data));
        outcome
    }

    /// Whether the function has a reset that is its alone and a whole one: a function level reset.
    #[must_use]
    pub fn has_function_reset(&self) -> bool {
        self.resets.iter().any(Option::is_some)
    }

    /// Back to the state after a reset: in D0, nothing decodes, no interrupts. What goes on to the hardware should do so before it is reset, and
    /// is for functions that can't be.
    pub fn reset(&mut self) -> Outcome {
        let mut outcome =
            self.change(|Filter { table, bars: _, power: _, msi: _, msix: _, resets: _ }| table.reset());
        if let (Some(power), Some(_)) = (self.power, outcome.power) {
            outcome.forwards.extend(self.table.forward(power.register(), &[0]));
        }
        outcome.forwards.extend(self.table.forward(register::COMMAND.into(), &[0, 0]));
        outcome
    }

    /// What BAR `index`, or [`ROM`](super::ROM), asks for, if there is one.
    #[must_use]
    pub fn bar(&self, index: u8) -> Option<Bar> {
        self.bars.get(index)
    }

    /// Where BAR `index`, or [`ROM`](super::ROM), decodes now: see [`ConfigSpace::decoded`](super::ConfigSpace::decoded).
    #[must_use]
    pub fn decoded(&self, index: u8) -> Option<u64> {
        self.bars.decoded(index, self.decoding(), |offset| self.table.dword(offset.into()))
    }

    /// Where the expansion ROM decodes now.
    #[must_use]
    pub fn rom_decoded(&self) -> Option<u64> {
        self.decoded(bar::ROM)
    }

    /// The Command register's I/O, Memory, Master and INTx Disable bits, as the guest has set them. They are in [`command`].
    #[must_use]
    pub fn command(&self) -> u16 {
        self.table.word(register::COMMAND.into()) & COMMAND
    }

    /// The power state: 0 to 3 for D0 to D3hot.
    #[must_use]
    pub fn power_state(&self) -> u8 {
        self.power.map_or(0, |power| power.state(&self.table))
    }

    /// The MSI capability, if the guest sees one.
    #[must_use]
    pub fn msi(&self) -> Option<Msi> {
        self.msi.map(|msi| msi.get(&self.table))
    }

    /// The MSI-X capability, if the guest sees one.
    #[must_use]
    pub fn msix(&self) -> Option<MsiX> {
        self.msix.map(|msix| msix.get(&self.table))
    }

    /// Shows the guest which of its masked MSI vectors wait, a bit each. Not every function has a register for it.
    pub fn set_msi_pending(&mut self, pending: u32) {
        if let Some(msi) = self.msi {
            msi.set_pending(pending, &mut self.table);
        }
    }

    /// What the Command register lets decode. In D1 and below a function answers to configuration accesses only (PCI Express Base 4.0, 5.3.1.2).
    fn decoding(&self) -> u16 {
        if self.power_state() == 0 { self.command() } else { 0 }
    }

    fn all_decoded(&self) -> [Option<u64>; bar::COUNT] {
        self.bars.all_decoded(self.decoding(), |offset| self.table.dword(offset.into()))
    }

    /// Compares before and after.
    fn change(&mut self, edit: impl FnOnce(&mut Self)) -> Outcome {
        let before = self.state();
        edit(self);
        let after = self.state();
        Outcome {
            forwards: Vec::new(),
            bars: bar::changes(before.decoded, after.decoded).collect(),
            command: Change::between(before.command, after.command),
            power: Change::between(before.power, after.power),
            msi: before.msi != after.msi,
            msix: before.msix != after.msix,
            reset: false,
        }
    }

    fn state(&self) -> State {
        State {
            decoded: self.all_decoded(),
            command: self.command(),
            power: self.power_state(),
            msi: self.msi(),
            msix: self.msix(),
        }
    }
}

/// What others follow.
struct State {
    decoded: [Option<u64>; bar::COUNT],
    command: u16,
    power: u8,
    msi: Option<Msi>,
    msix: Option<MsiX>,
}
