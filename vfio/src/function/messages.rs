//! MSI and MSI-X: the vectors of a function while it sends messages.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use kagero_devices::pci::{Message, filter::Msi};

use super::ends::Ends;
use super::vector::Vector;
use crate::{Interrupt, Rung};

/// MSI: all vectors ring, as there is no other way.
pub(super) struct Messages {
    /// How many the guest uses.
    asked: u16,
    vectors: Vec<Vector>,
}

impl Messages {
    /// Turns MSI on in the hardware, for as many vectors as it gives. No other interrupts may be on.
    pub(super) fn new(msi: &Msi, ends: &mut Ends) -> Self {
        let asked = msi.vectors;
        let count = u32::from(asked).min(ends.hardware.vectors(Interrupt::Msi));
        let vectors: Vec<_> = (0..count).map_while(|_| Vector::new(ends)).collect();
        let mut messages = Messages { asked, vectors };
        messages.ring(ends);
        messages.update(msi, ends);
        messages
    }

    /// Again with fewer until the kernel agrees. With fewer than the guest asked for, the hardware sends those that there are in place of the others
    /// (PCI Local Bus 3.0, 6.8.3.4: it knows how many it was given).
    fn ring(&mut self, ends: &mut Ends) {
        while !self.vectors.is_empty() {
            let events: Vec<_> = self.vectors.iter().map(|vector| Some(vector.event())).collect();
            let rung = ends.hardware.ring(Interrupt::Msi, 0, &events);
            let fewer = match rung {
                Ok(Rung::AtMost(most @ 1..)) if self.vectors.len() > 1 => {
                    // MSI comes in powers of two (6.8.1.3).
                    1 << (most as usize).min(self.vectors.len() - 1).ilog2()
                }
                rung => match ends.check_rung("turning MSI on", rung) {
                    Some(()) => return,
                    None => 0,
                },
            };
            self.vectors.truncate(fewer);
        }
    }

    /// How many vectors the guest asked for when MSI was turned on.
    pub(super) fn asked(&self) -> u16 {
        self.asked
    }

    /// Follows masks and messages.
    pub(super) fn update(&mut self, msi: &Msi, ends: &mut Ends) {
        for (index, vector) in (0..).zip(&mut self.vectors) {
            vector.send(msi.message(index), ends);
        }
    }

    /// A bit for each vector that waits while it is masked.
    pub(super) fn pending(&self) -> u32 {
        let waits = self.vectors.iter().map(Vector::is_pending);
        waits.zip(0..32).fold(0, |bits, (waits, index)| bits | u32::from(waits) << index)
    }

    pub(super) fn silence(&mut self, ends: &mut Ends) {
        for vector in &mut self.vectors {
            vector.send(None, ends);
        }
        if !self.vectors.is_empty() {
            let silenced = ends.hardware.silence(Interrupt::Msi);
            ends.check("turning MSI off", silenced);
        }
    }
}

/// MSI-X: a vector rings from the first time on that the guest unmasks it.
///
/// Drivers enable it with thousands of vectors masked that they never use, and each that rings takes a vector of a CPU of the host. A vector that is masked
/// again goes on to ring its event, which is its [pending bit](Vector).
pub(super) struct TableMessages {
    on: bool,
    vectors: BTreeMap<u16, Vector>,
}

impl TableMessages {
    /// Turns MSI-X on in the hardware with no vector ringing. No other interrupts may be on.
    ///
    /// The kernel turns it on with the first vector only. So that is made to ring, and dropped at once unless the guest wants it (`wanted`): a
    /// function that is not in MSI-X mode when its driver thinks so would use its pin.
    pub(super) fn new(table: u16, wanted: bool, ends: &mut Ends) -> Self {
        let mut new = TableMessages { on: false, vectors: BTreeMap::new() };
        let Some(first) = Vector::new(ends) else { return new };
        let mut count = if ends.hardware.grows() { 1 } else { u32::from(table) };
        count = count.min(ends.hardware.vectors(Interrupt::MsiX));
        while count > 0 && !new.on {
            let mut events: Vec<Option<BorrowedFd<'_>>> = vec![None; count as usize];
            events[0] = Some(first.event());
            let rung = ends.hardware.ring(Interrupt::MsiX, 0, &events);
            match rung {
                Ok(Rung::AtMost(most @ 1..)) if count > 1 => count = most.min(count - 1),
                rung => match ends.check_rung("turning MSI-X on", rung) {
                    Some(()) => new.on = true,
                    None => return new,
                },
            }
        }
        if new.on && wanted {
            new.vectors.insert(0, first);
        } else if new.on {
            let dropped = ends.hardware.ring(Interrupt::MsiX, 0, &[None]);
            ends.check("turning MSI-X on", dropped);
        }
        new
    }

    /// What vector `index` sends from now on: nothing while it is masked.
    pub(super) fn send(&mut self, index: u16, message: Option<Message>, ends: &mut Ends) {
        if let Some(vector) = self.vectors.get_mut(&index) {
            return vector.send(message, ends);
        }
        if message.is_none() || !self.on {
            return;
        }
        let Some(mut vector) = Vector::new(ends) else { return };
        // First somebody who hears it, then what rings it.
        vector.send(message, ends);
        let rung = ends.hardware.ring(Interrupt::MsiX, index.into(), &[Some(vector.event())]);
        match ends.check_rung("turning an MSI-X vector on", rung) {
            Some(()) => drop(self.vectors.insert(index, vector)),
            None => vector.send(None, ends),
        }
    }

    /// Which of the masked vectors wait.
    pub(super) fn pending(&self) -> impl Iterator<Item = u16> {
        self.vectors.iter().filter(|(_, vector)| vector.is_pending()).map(|(&index, _)| index)
    }

    pub(super) fn silence(&mut self, ends: &mut Ends) {
        for vector in self.vectors.values_mut() {
            vector.send(None, ends);
        }
        self.vectors.clear();
        if self.on {
            let silenced = ends.hardware.silence(Interrupt::MsiX);
            ends.check("turning MSI-X off", silenced);
        }
    }
}
