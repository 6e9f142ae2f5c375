//! The interrupt pin, as a line of the guest's machine.

use std::os::fd::{AsFd, OwnedFd};

use super::ends::Ends;
use super::vector::new_event;
use crate::Interrupt;

/// The pin, connected to a line.
///
/// The kernel masks the pin when it rings, and unmasks it when the guest has served the interrupt, which rings the second event. No BAR access ever
/// does that: guessing from accesses when an interrupt is served costs an exit for each.
pub(super) struct Line {
    irq: u8,
    /// What the pin rings, and what unmasks it.
    events: Option<(OwnedFd, OwnedFd)>,
    /// How far connecting it came.
    rings: bool,
    connected: bool,
}

impl Line {
    /// Connects the pin to this line. No other interrupts may be on.
    pub(super) fn new(irq: u8, ends: &mut Ends) -> Self {
        let events = new_event(ends).zip(new_event(ends));
        let mut line = Line { irq, events, rings: false, connected: false };
        if line.connect(ends).is_none() {
            line.disconnect(ends);
        }
        line
    }

    pub(super) fn irq(&self) -> u8 {
        self.irq
    }

    fn connect(&mut self, ends: &mut Ends) -> Option<()> {
        let (trigger, resample) = self.events.as_ref()?;
        let rung = ends.hardware.ring(Interrupt::Intx, 0, &[Some(trigger.as_fd())]);
        ends.check_rung("turning its interrupt pin on", rung)?;
        self.rings = true;
        // It may have rung already, with nobody there: masked, and then unmasked, it rings again.
        let masked = ends.hardware.mask_line(true);
        ends.check("masking its interrupt pin", masked)?;
        let connected = ends.machine.connect_line(self.irq, trigger.as_fd(), resample.as_fd());
        ends.check("connecting its interrupt pin", connected)?;
        self.connected = true;
        let unmasks = ends.hardware.unmask_line_on(resample.as_fd());
        ends.check("letting the guest unmask its interrupt pin", unmasks)?;
        let unmasked = ends.hardware.mask_line(false);
        ends.check("unmasking its interrupt pin", unmasked)
    }

    /// The pin rings nobody any more.
    pub(super) fn disconnect(&mut self, ends: &mut Ends) {
        let Some((trigger, _)) = self.events.take() else { return };
        if self.connected {
            ends.machine.disconnect_line(self.irq, trigger.as_fd());
        }
        if self.rings {
            let silenced = ends.hardware.silence(Interrupt::Intx);
            ends.check("turning its interrupt pin off", silenced);
        }
    }
}
