//! One passed-through PCI function, as the guest's board sees it.

mod bars;
mod decode;
mod ends;
mod interrupts;
mod line;
mod messages;
mod place;
#[cfg(test)]
mod tests;
mod vector;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use kagero_devices::pci::filter::Outcome;
use kagero_devices::pci::{Bar, Filter, Found, MsiXTable, register};

use crate::{Error, Hardware, Interrupt, Machine, Region};
use bars::Bars;
pub use decode::{Decode, Space};
use ends::Ends;
use interrupts::Interrupts;
use place::Place;

/// A passed-through function.
///
/// Its guest sees configuration space through a [`Filter`]. What the guest changes there is carried out in an order in which nothing is reached
/// that should not be: registers leave the guest's address space, then the hardware hears of it, then registers come back, then interrupts
/// change. What can't be carried out never stops the guest: see [`take_error`](Self::take_error).
pub struct Function {
    filter: Filter,
    table: MsiXTable,
    bars: Bars,
    interrupts: Interrupts,
    /// 0 for INTA.
    pin: Option<u8>,
    /// The line that the pin leads to.
    irq: Option<u8>,
    error: Option<OwnedFd>,
    request: Option<OwnedFd>,
    ends: Ends,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("hardware", &self.ends.hardware).finish_non_exhaustive()
    }
}

impl Function {
    /// Takes the function over: decoding nothing, without interrupts. It lies on the root bus or not, and is one of several in its slot or not.
    /// VFIO has reset it and put it into D0 when it was opened.
    ///
    /// # Errors
    /// When the hardware does not answer.
    pub fn new(
        hardware: Box<dyn Hardware>,
        machine: Arc<dyn Machine>,
        root_bus: bool,
        multifunction: bool,
    ) -> Result<Function, Error> {
        let mut ends = Ends::new(hardware, machine);
        let config = read_all(&ends)?;
        let intx = ends.hardware.vectors(Interrupt::Intx) > 0;
        let mut filter = Filter::new(&Found {
            config: &config,
            bars: std::array::from_fn(|bar| ends.hardware.bar(bar as u8)),
            rom: u32::try_from(ends.hardware.size(Region::Rom)).unwrap_or(0),
            root_bus,
            intx,
            multifunction,
        });
        let pin = config.get(usize::from(register::INTERRUPT_PIN)).copied().unwrap_or(0);
        let bars = Bars::new(&filter, &mut ends);
        let error = notice(Interrupt::Error, &mut ends);
        let request = notice(Interrupt::Request, &mut ends);
        let outcome = filter.reset();
        let mut function = Function {
            table: MsiXTable::new(filter.msix().map_or(1, |msix| msix.vectors)),
            filter,
            bars,
            interrupts: Interrupts::Off,
            pin: pin.checked_sub(1).filter(|&pin| intx && pin < 4),
            irq: None,
            error,
            request,
            ends,
        };
        function.forward(&outcome);
        Ok(function)
    }

    /// What people call it: `0000:03:00.0`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.ends.hardware.name()
    }

    /// A guest's read of configuration space.
    pub fn read_config(&mut self, offset: u16, out: &mut [u8]) {
        if let (Some(msi), Interrupts::Msi(messages)) = (self.filter.msi(), &self.interrupts) {
            // The pending bits are among the last registers of the capability, of which none is longer than this.
            if (msi.offset..msi.offset.saturating_add(24)).contains(&offset) {
                self.filter.set_msi_pending(messages.pending());
            }
        }
        let length =
            self.ends.hardware.size(Region::Config).saturating_sub(offset.into()).min(out.len() as u64);
        let (there, past) = out.split_at_mut(length as usize);
        past.fill(0xff);
        if there.is_empty() {
            return;
        }
        let read = self.ends.hardware.read(Region::Config, offset.into(), there);
        self.ends.check("reading its configuration space", read);
        self.filter.read(offset, there);
    }

    /// A guest's write there. True when [`decodes`](Self::decodes) says something else now.
    pub fn write_config(&mut self, offset: u16, data: &[u8]) -> bool {
        let outcome = self.filter.write(offset, data);
        let mut moved = self.carry_out(&outcome);
        if outcome.reset {
            moved |= self.quiesce();
            let reset = self.ends.hardware.reset();
            self.ends.check("resetting it for the guest", reset);
            self.follow();
        }
        moved
    }

    /// What BAR `index` asks for, if there is one; for who gives it an address.
    #[must_use]
    pub fn bar(&self, index: u8) -> Option<Bar> {
        self.filter.bar(index)
    }

    /// A guest's read of a BAR or the ROM, `offset` bytes from its start.
    pub fn read(&mut self, region: Region, offset: u64, out: &mut [u8]) {
        match self.place(region, offset, out.len()) {
            Place::Hardware => {
                let read = self.ends.hardware.read(region, offset, out);
                self.ends.check("reading its registers", read);
            }
            Place::Table(offset) => self.table.read(offset, out).unwrap_or_else(|_| out.fill(0xff)),
            Place::Pending(offset) => {
                self.look_for_pending();
                self.table.read_pending(offset, out).unwrap_or_else(|_| out.fill(0xff));
            }
            Place::Nowhere => out.fill(0xff),
        }
    }

    /// A guest's write there.
    pub fn write(&mut self, region: Region, offset: u64, data: &[u8]) {
        match self.place(region, offset, data.len()) {
            // A ROM takes no writes, and the kernel none for it.
            Place::Hardware if region == Region::Rom => {}
            Place::Hardware => {
                let written = self.ends.hardware.write(region, offset, data);
                self.ends.check("writing its registers", written);
            }
            Place::Table(offset) => {
                let Ok(Some(change)) = self.table.write(offset, data) else { return };
                if let Interrupts::MsiX(messages) = &mut self.interrupts {
                    messages.send(change.vector, change.to, &mut self.ends);
                }
            }
            Place::Pending(_) | Place::Nowhere => {}
        }
    }

    /// Its interrupt pin: 0 for INTA to 3 for INTD.
    #[must_use]
    pub fn pin(&self) -> Option<u8> {
        self.pin
    }

    /// The pin leads to this interrupt line of the machine now, or to none.
    pub fn route_line(&mut self, irq: Option<u8>) {
        self.irq = irq.filter(|_| self.pin.is_some());
        self.follow();
    }

    /// The machine is reset. True when [`decodes`](Self::decodes) says something else now.
    ///
    /// A function level reset is best. Without one, its bus is reset, when all functions there are ours: what else the kernel knows, D3hot and back,
    /// leaves some hardware as it was, and that goes on writing to memory as soon as the next guest lets it. One that has none of these goes on as it
    /// is, decoding nothing and without access to memory.
    pub fn reset(&mut self) -> bool {
        let moved = self.quiesce();
        let mut ways: [fn(&dyn Hardware) -> io::Result<()>; 2] = [|it| it.reset(), |it| it.reset_bus()];
        if !self.filter.has_function_reset() {
            ways.reverse();
        }
        let is_there = |outcome: &io::Result<()>| !matches!(outcome, Err(error) if error.kind() == io::ErrorKind::Unsupported);
        let reset = ways.iter().map(|way| way(&*self.ends.hardware)).find(is_there).unwrap_or(Ok(()));
        self.ends.check("resetting it", reset);
        self.follow();
        moved
    }

    /// Rings when the hardware has failed beyond repair.
    #[must_use]
    pub fn error_event(&self) -> Option<BorrowedFd<'_>> {
        self.error.as_ref().map(AsFd::as_fd)
    }

    /// Rings when the host wants the function back.
    #[must_use]
    pub fn request_event(&self) -> Option<BorrowedFd<'_>> {
        self.request.as_ref().map(AsFd::as_fd)
    }

    /// What went wrong, the oldest first. Each kind of trouble is told once. The guest can go on unless it is [`Error::Vanished`].
    pub fn take_error(&mut self) -> Option<Error> {
        self.ends.take_error()
    }

    /// As before a reset: interrupts off, D0, no decoding and no DMA.
    fn quiesce(&mut self) -> bool {
        self.interrupts.off(&mut self.ends);
        let outcome = self.filter.reset();
        self.table.reset();
        self.bars.retract(&self.filter, &mut self.ends);
        self.forward(&outcome);
        !outcome.bars.is_empty()
    }

    fn carry_out(&mut self, outcome: &Outcome) -> bool {
        if !outcome.bars.is_empty() {
            self.bars.retract(&self.filter, &mut self.ends);
        }
        self.forward(outcome);
        if !outcome.bars.is_empty() {
            self.bars.extend(&self.filter, &mut self.ends);
        }
        if outcome.msi || outcome.msix {
            self.follow();
        }
        !outcome.bars.is_empty()
    }

    fn forward(&mut self, outcome: &Outcome) {
        for forward in &outcome.forwards {
            let written = self.ends.hardware.write(Region::Config, forward.offset.into(), forward.data());
            self.ends.check("writing its configuration space", written);
        }
    }

    /// Interrupts become what configuration space and the table say.
    fn follow(&mut self) {
        let masked = self.filter.msix().is_some_and(|msix| msix.masked);
        // All vectors are looked at below, not only those that changed.
        let _ = self.table.mask_function(masked);
        self.interrupts.follow(&self.filter, &self.table, self.irq, &mut self.ends);
    }

    /// The vectors' events are the pending bits: the table's are made to say the same.
    fn look_for_pending(&mut self) {
        for vector in 0..self.table.vectors() {
            // The event keeps the interrupt; nothing is lost here.
            let _ = self.table.take_pending(vector);
        }
        if let Interrupts::MsiX(messages) = &self.interrupts {
            messages.pending().for_each(|vector| self.table.pend(vector));
        }
    }
}

impl Drop for Function {
    /// DMA ends here, while guest memory is still mapped: KVM may keep the kernel's device open for longer.
    fn drop(&mut self) {
        self.quiesce();
    }
}

/// All of configuration space.
fn read_all(ends: &Ends) -> Result<Vec<u8>, Error> {
    const DOING: &str = "reading its configuration space";
    let mut config = vec![0; ends.hardware.size(Region::Config).min(4096) as usize];
    ends.hardware.read(Region::Config, 0, &mut config).map_err(|source| ends.error(DOING, source))?;
    // Where nothing answers, the bus reads as ones.
    if config.len() < 64 || config[..2] == [0xff, 0xff] {
        let (device, source) = (ends.hardware.name().to_owned(), io::Error::other("nothing answers"));
        return Err(Error::Vanished { device, doing: DOING, source });
    }
    Ok(config)
}

/// An event for what the hardware has to say about itself, if it can.
fn notice(kind: Interrupt, ends: &mut Ends) -> Option<OwnedFd> {
    if ends.hardware.vectors(kind) == 0 {
        return None;
    }
    let event = vector::new_event(ends)?;
    let rung = ends.hardware.ring(kind, 0, &[Some(event.as_fd())]);
    ends.check_rung("asking for signs of failure", rung)?;
    Some(event)
}
